"""Masked frame + feature image -> frame: the coarse-to-fine inpainting network.

The paper's supplement, section 3: a pix2pixHD LocalEnhancer (Wang et al. 2018)
whose coarse branch meets the tri-plane's feature image where their sizes agree.

b batch, h height, w width, c channels, g feature channels.
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


@ranges.declare(
  feature_channels=ranges.COUNT_OR_NONE,
  num_downsamples=ranges.Range(1, 8),
  num_global_blocks=ranges.Range(0, 100),
  num_local_blocks=ranges.Range(0, 100),
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the inpainting network; the defaults are the paper's.

  Attributes:
    feature_channels: of the feature image; 0 for none, which is pix2pixHD.
    channels: width of the full-resolution branch; the coarse one has twice it.
    num_downsamples: of the coarse branch, from half the frame's size to the
      feature image's (512 -> 256 -> 64 takes two).
    num_global_blocks: residual blocks at the feature image's size.
    num_local_blocks: residual blocks at half the frame's size.
    input_channels: of the masked frame.
    output_channels: of the inpainted frame.
    dtype: of the activations; parameters and norms are float32.
    remat: for the gradient only the inputs of every convolution with its norm,
      and of every residual block, are kept.
  """

  feature_channels: int = 32
  channels: int = 32
  num_downsamples: int = 2
  num_global_blocks: int = 4
  num_local_blocks: int = 3
  input_channels: int = 3
  output_channels: int = 3
  dtype: str = "float32"
  remat: bool = False

  @property
  def reduction(self) -> int:
    """The frame's side as a multiple of the feature image's."""
    return 2 ** (self.num_downsamples + 1)


class InpaintingOutput(NamedTuple):
  """What the network returns.

  Attributes:
    image: the inpainted frame, [-1, 1], float32.
    bottleneck: after the coarse residual blocks, at the feature image's size.
    coarse: the coarse branch's output, at half the frame's size.
  """

  image: Float[Array, "b h w c"]
  bottleneck: Float[Array, "b h8 w8 c8"]
  coarse: Float[Array, "b h2 w2 c2"]


class Conv(nnx.Module):
  """Convolution with reflected edges (stride 1) or zero edges (stride 2)."""

  def __init__(
    self,
    num_in: int,
    num_out: int,
    size: int = 3,
    stride: int = 1,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs,
  ):
    shape = (size, size, num_in, num_out)
    self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
    # pix2pixHD starts from small random biases; all but the last one's are
    # undone by the norm that follows, so all are zero here.
    self.bias = nnx.Param(jnp.zeros(num_out))
    self.stride = stride
    self.dtype = dtype

  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    x = x.astype(self.dtype)
    ends = (self.kernel.shape[0] // 2,) * 2
    padding = (ends, ends)
    if self.stride == 1:
      x = jnp.pad(x, ((0, 0), *padding, (0, 0)), "reflect")
      padding = "VALID"
    y = convolution.conv2d(
      x,
      self.kernel[...].astype(self.dtype),
      stride=self.stride,
      padding=padding,
      quick=True,
    )
    return y + self.bias.astype(self.dtype)


class TransposedConv(nnx.Module):
  """Stride-2 transposed 3x3 convolution to exactly twice the size.

  Kernel offset k of input pixel i lands on output pixel 2 i - 1 + k.
  """

  def __init__(
    self, num_in: int, num_out: int, *, dtype: str = "float32", rngs: nnx.Rngs
  ):
    shape = (3, 3, num_in, num_out)
    self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros(num_out))
    self.dtype = dtype

  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    # Four small convolutions, one for each parity of the output pixel: on a CPU
    # the kernel's gradient through lhs_dilation is some ten times slower.
    n, h, w, _ = x.shape
    kernel = self.kernel[...].astype(self.dtype)
    x = jnp.pad(x.astype(self.dtype), ((0, 0), (0, 1), (0, 1), (0, 0)))
    even, odd = slice(1, 2), slice(2, None, -2)  # offsets 1; 2 and 0
    rows = []
    for row, last_row in ((even, h), (odd, h + 1)):
      parts = [
        convolution.conv2d(
          x[:, :last_row, :last], kernel[row, column], padding="VALID"
        )
        for column, last in ((even, w), (odd, w + 1))
      ]
      rows.append(jnp.stack(parts, axis=3))
    y = jnp.stack(rows, axis=2)  # (n, h, 2, w, 2, o)
    y = y.reshape(n, 2 * h, 2 * w, y.shape[-1])
    return y + self.bias.astype(self.dtype)


class ResidualBlock(nnx.Module):
  """Two normalised convolutions, added to the input; no activation after."""

  def __init__(self, channels: int, *, dtype: str, rngs: nnx.Rngs):
    self.first = Conv(channels, channels, dtype=dtype, rngs=rngs)
    self.second = Conv(channels, channels, dtype=dtype, rngs=rngs)

  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    y = normalise(self.first(x))
    return x + pooling.instance_norm(self.second(y))


class InpaintingGenerator(nnx.Module):
  """The coarse and the full-resolution branch, summed at half size."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    _check(config)
    self.config = config
    num = config.num_downsamples
    fine, coarse = config.channels, 2 * config.channels
    wide = coarse * 2**num + config.feature_channels
    keep = dict(dtype=config.dtype, rngs=rngs)
    self.coarse_in = Conv(config.input_channels, coarse, 7, **keep)
    self.coarse_down = nnx.List(
      Conv(coarse * 2**i, coarse * 2 ** (i + 1), stride=2, **keep)
      for i in range(num)
    )
    self.coarse_blocks = nnx.List(
      ResidualBlock(wide, **keep) for _ in range(config.num_global_blocks)
    )
    self.coarse_up = nnx.List(
      TransposedConv(
        wide if i == 0 else coarse * 2 ** (num - i),
        coarse * 2 ** (num - 1 - i),
        **keep,
      )
      for i in range(num)
    )
    self.fine_in = Conv(config.input_channels, fine, 7, **keep)
    self.fine_down = Conv(fine, coarse, stride=2, **keep)
    self.fine_blocks = nnx.List(
      ResidualBlock(coarse, **keep) for _ in range(config.num_local_blocks)
    )
    self.fine_up = TransposedConv(coarse, fine, **keep)
    self.fine_out = Conv(fine, config.output_channels, 7, **keep)

  def __call__(
    self,
    image: Float[Array, "b h w c"],
    feature_image: Float[Array, "b h8 w8 g"] | None = None,
  ) -> InpaintingOutput:
    """Inpaints a masked frame.

    Args:
      image: the frame with the masked pixels already blanked, [-1, 1].
      feature_image: of 1 / 2^(num_downsamples + 1) the frame's size; None
        exactly when `feature_channels` is 0.

    Raises:
      ConfigError: where sizes or channels do not fit together.
    """
    self._check_sizes(image, feature_image)
    x = self._normalised(self.coarse_in, pooling.halve(image))
    for conv in self.coarse_down:
      x = self._normalised(conv, x)
    if feature_image is not None:
      x = jnp.concatenate([x, feature_image.astype(x.dtype)], axis=-1)
    for block in self.coarse_blocks:
      x = self._run(block, x)
    bottleneck = x
    for conv in self.coarse_up:
      x = self._normalised(conv, x)
    coarse = x
    x = self._normalised(self.fine_in, image)
    x = coarse + self._normalised(self.fine_down, x)
    for block in self.fine_blocks:
      x = self._run(block, x)
    x = self._run(self.fine_out, self._normalised(self.fine_up, x))
    inpainted = jnp.tanh(x.astype(jnp.float32))
    return InpaintingOutput(inpainted, bottleneck, coarse)

  def _normalised(self, conv, x):
    return self._run(lambda x: normalise(conv(x)), x)

  def _run(self, block, x):
    return jax.checkpoint(block)(x) if self.config.remat else block(x)

  def _check_sizes(self, image, feature_image) -> None:
    factor = self.config.reduction
    height, width, channels = image.shape[1:]
    if height % factor or width % factor:
      raise ConfigError(
        f"a frame of {height}x{width} cannot be halved "
        f"{self.config.num_downsamples + 1} times: make its sides multiples of "
        f"{factor}"
      )
    if channels != self.config.input_channels:
      raise ConfigError(
        f"the frame has {channels} channels, the network takes "
        f"{self.config.input_channels}: set input_channels={channels}"
      )
    expected = (
      height // factor,
      width // factor,
      self.config.feature_channels,
    )
    actual = (*expected[:2], 0)
    if feature_image is not None:
      actual = feature_image.shape[1:]
    if tuple(actual) != expected:
      raise ConfigError(
        f"a {height}x{width} frame halved {self.config.num_downsamples + 1} "
        f"times meets a feature image of {expected}, not {tuple(actual)}: "
        "change num_downsamples, feature_channels or the feature resolution"
      )


def normalise(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Normalises and rectifies, as after most convolutions.

  All but the second of a residual block and the last of the network.
  """
  return jax.nn.relu(pooling.instance_norm(x))


def _check(config: Config) -> None:
  if config.num_downsamples < 1:
    raise ConfigError(
      f"num_downsamples={config.num_downsamples} must be at least 1: the "
      "coarse branch returns to half the frame's size by its upsamplings"
    )
