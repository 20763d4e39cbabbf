"""StyleGAN2's mapping and synthesis networks.

b batch, i inputs, s style size, k number of styles, h height, w width,
c channels of the image.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax.models import stylegan2_layers
from pir_jax.ops import activations
from pir_jax.types import ConfigError


def num_channels(resolution: int, base: int, maximum: int) -> int:
  """Width of the features at a resolution: they halve as the side doubles."""
  return max(1, min(base // resolution, maximum))


class Mapping(nnx.Module):
  """Fully connected layers from a condition to a style.

  The input is taken as it is: normalising it, as StyleGAN2 does with noise,
  would lose how strong an expression is.
  """

  def __init__(
    self,
    num_inputs: int,
    style_size: int,
    depth: int,
    *,
    lr_multiplier: float = 0.01,
    rngs: nnx.Rngs,
  ):
    sizes = [num_inputs] + [style_size] * depth
    self.layers = nnx.List(
      stylegan2_layers.Linear(a, b, lr_multiplier=lr_multiplier, rngs=rngs)
      for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    )

  def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b s"]:
    for layer in self.layers:
      x = activations.leaky_relu(layer(x))
    return x


class Synthesis(nnx.Module):
  """Styles -> image, from a learned constant, doubling block by block.

  The published networks start at 4x4; a small one may start larger.
  """

  def __init__(
    self,
    style_size: int,
    resolution: int,
    num_image: int,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    constant_side: int = 4,
    noise: bool = True,
    dtype: str = "float32",
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    keep = dict(remat=remat, rngs=rngs)
    num_blocks = round(math.log2(resolution / constant_side))
    sides = [constant_side * 2**i for i in range(num_blocks + 1)]
    if num_blocks < 1 or sides[-1] != resolution:
      raise ConfigError(
        f"resolution={resolution} must be constant_side={constant_side} doubled"
        " once or more"
      )
    widths = [num_channels(s, channel_base, channel_max) for s in sides]
    self.constant = nnx.Param(
      jax.random.normal(
        rngs.params(), (constant_side, constant_side, widths[0])
      )
    )
    self.conv = stylegan2_layers.StyledConv(
      widths[0], widths[0], style_size, constant_side, noise=noise, **keep
    )
    self.to_image = stylegan2_layers.ToImage(
      widths[0], num_image, style_size, **keep
    )
    self.blocks = nnx.List(
      stylegan2_layers.SynthesisBlock(
        before, after, num_image, style_size, side, noise=noise, **keep
      )
      for before, after, side in zip(
        widths[:-1], widths[1:], sides[1:], strict=True
      )
    )
    self.num_styles = 2 * len(sides)
    self.dtype = dtype

  def __call__(
    self,
    ws: Float[Array, "b k s"],
    *,
    key: Key[Array, ""] | None = None,
  ) -> Float[Array, "b h w c"]:
    num_keys = 1 + len(self.blocks)
    keys = [None] * num_keys if key is None else jax.random.split(key, num_keys)
    ws = ws.astype(self.dtype)
    x = self.constant[...].astype(self.dtype)
    x = jnp.broadcast_to(x, (ws.shape[0], *x.shape))
    x = self.conv(x, ws[:, 0], key=keys[0])
    image = self.to_image(x, ws[:, 1])
    for i, block in enumerate(self.blocks):
      # Each image style is also the next block's first: hence steps of two.
      styles = ws[:, 2 * i + 1 : 2 * i + 4]
      x, image = block(x, image, styles, key=keys[i + 1])
    return image
