"""Multi-scale patch discriminator: is each patch of this frame real?

pix2pixHD (Wang et al. 2018), section 3.2. Which discriminator the paper used is
not known; this is the one of the network it started from.

b batch, h height, w width, c channels, s scales, l layers.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pir_jax import ranges
from pir_jax.ops import convolution, pooling
from pir_jax.types import ConfigError


@ranges.declare(num_layers=ranges.Range(1, 8), num_scales=ranges.Range(1, 8))
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the discriminator; the defaults are pix2pixHD's.

  Attributes:
    input_channels: of condition and frame together (masked frame + frame).
    channels: of the first layer; doubled each layer.
    max_channels: no layer is wider.
    num_layers: layers with stride 2; one more has stride 1, then the logits.
    num_scales: the frame, its half, its quarter, ...
    dtype: of the activations; parameters, norms and logits are float32.
    remat: for the gradient only the inputs of every layer are kept.
  """

  input_channels: int = 6
  channels: int = 64
  max_channels: int = 512
  num_layers: int = 3
  num_scales: int = 2
  dtype: str = "float32"
  remat: bool = False


class PatchOutput(NamedTuple):
  """What the discriminator returns, the full-resolution scale first.

  Attributes:
    logits: per scale, one a patch, no sigmoid.
    features: per scale, the activations of every layer but the last.
  """

  logits: tuple[Float[Array, "b _h _w 1"], ...]
  features: tuple[tuple[Float[Array, "b _h _w _c"], ...], ...]


class Conv(nnx.Module):
  """4x4 convolution with two rows and columns of zeros around the image."""

  def __init__(
    self,
    num_in: int,
    num_out: int,
    stride: int,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs,
  ):
    shape = (4, 4, num_in, num_out)
    self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
    # Zero, where pix2pixHD has small random ones: most meet a norm at once.
    self.bias = nnx.Param(jnp.zeros(num_out))
    self.stride = stride
    self.dtype = dtype

  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    y = convolution.conv2d(
      x.astype(self.dtype),
      self.kernel[...].astype(self.dtype),
      stride=self.stride,
      padding=((2, 2), (2, 2)),
    )
    return y + self.bias.astype(self.dtype)


class PatchDiscriminator(nnx.Module):
  """One scale: the first layer has no norm, the last gives the logits."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    num = config.num_layers
    widths = [
      min(config.channels * 2**i, config.max_channels) for i in range(num + 1)
    ]
    sizes = [config.input_channels, *widths, 1]
    self.layers = nnx.List(
      Conv(
        sizes[i],
        sizes[i + 1],
        2 if i < num else 1,
        dtype=config.dtype,
        rngs=rngs,
      )
      for i in range(num + 2)
    )
    self.remat = config.remat

  def __call__(
    self, x: Float[Array, "b h w c"]
  ) -> tuple[Float[Array, "b _h _w 1"], tuple[Float[Array, "b _h _w _c"], ...]]:
    *layers, last = self.layers
    features = []
    for i, layer in enumerate(layers):
      norm = pooling.instance_norm if i else lambda x: x

      def run(x, layer=layer, norm=norm):
        return jax.nn.leaky_relu(norm(layer(x)), 0.2)

      x = jax.checkpoint(run)(x) if self.remat else run(x)
      features.append(x)
    return last(x).astype(jnp.float32), tuple(features)


class MultiscaleDiscriminator(nnx.Module):
  """The same kind of discriminator on the frame, its half, its quarter, ..."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    self.scales = nnx.List(
      PatchDiscriminator(config, rngs=rngs) for _ in range(config.num_scales)
    )

  def __call__(self, image: Float[Array, "b h w c"]) -> PatchOutput:
    """Returns logits of frames, the condition concatenated to the channels."""
    if image.shape[-1] != self.config.input_channels:
      raise ConfigError(
        f"condition and frame have {image.shape[-1]} channels together, the "
        f"discriminator takes {self.config.input_channels}: set "
        f"input_channels={image.shape[-1]}"
      )
    logits, features = [], []
    for i, scale in enumerate(self.scales):
      image = pooling.halve(image) if i else image
      logit, feature = scale(image)
      logits.append(logit)
      features.append(feature)
    return PatchOutput(tuple(logits), tuple(features))
