"""The dual discriminator: logits of an image and its raw rendering together.

b batch, h height, w width, r side of the raw image, c channels, l label size.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pir_jax import ranges
from pir_jax.models import stylegan2, stylegan2_layers
from pir_jax.ops import activations
from pir_jax.types import ConfigError


@ranges.declare(
  label_size=ranges.COUNT_OR_NONE,
  channel_base=ranges.COUNT,
  map_depth=ranges.Range(0, 100),
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the dual discriminator (EG3D; the paper does not say it has one).

  Attributes:
    resolution: side of the image; a power of two, at least 8.
    label_size: of the condition; 25 for a camera vector, 0 for none.
    channel_base: features at side n have channel_base / n channels,
    channel_max: but never more than this.
    map_depth: layers of the condition's network.
    group_size: examples whose spread is measured together.
    dtype: of the activations.
    remat: for the gradient only the inputs of every block are kept.
  """

  resolution: int = 512
  label_size: int = 25
  channel_base: int = 32768
  channel_max: int = 512
  map_depth: int = 8
  group_size: int = 4
  dtype: str = "float32"
  remat: bool = False


class Block(nnx.Module):
  """Two convolutions that halve the size, beside a 1x1 shortcut."""

  def __init__(self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs):
    self.conv0 = stylegan2_layers.Conv(num_inputs, num_inputs, 3, rngs=rngs)
    self.conv1 = stylegan2_layers.Conv(
      num_inputs, num_outputs, 3, down=True, rngs=rngs
    )
    self.skip = stylegan2_layers.Conv(
      num_inputs, num_outputs, 1, down=True, linear=True, rngs=rngs
    )

  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    return (self.skip(x) + self.conv1(self.conv0(x))) * math.sqrt(0.5)


class LabelMapping(nnx.Module):
  """Condition -> the direction its logits are read along."""

  def __init__(
    self, label_size: int, num_outputs: int, depth: int, *, rngs: nnx.Rngs
  ):
    self.embed = stylegan2_layers.Linear(label_size, num_outputs, rngs=rngs)
    self.mapping = stylegan2.Mapping(num_outputs, num_outputs, depth, rngs=rngs)

  def __call__(self, label: Float[Array, "b l"]) -> Float[Array, "b c"]:
    return self.mapping(activations.normalize_second_moment(self.embed(label)))


def minibatch_std(
  x: Float[Array, "b h w c"], group_size: int
) -> Float[Array, "b h w 1"]:
  """Returns the mean standard deviation within groups, as one more channel.

  Examples i, i + m, i + 2m, ... share a group. A batch that `group_size` does
  not divide uses the largest smaller group that does.
  """
  num_batch = x.shape[0]
  group = max(g for g in range(1, group_size + 1) if num_batch % g == 0)
  grouped = x.astype(jnp.float32).reshape(group, -1, *x.shape[1:])
  variance = jnp.mean(jnp.square(grouped - jnp.mean(grouped, 0)), 0)
  std = jnp.mean(jnp.sqrt(variance + 1e-8), (1, 2, 3))
  std = jnp.tile(std, group)[:, None, None, None]
  return jnp.broadcast_to(std, (*x.shape[:3], 1)).astype(x.dtype)


class DualDiscriminator(nnx.Module):
  """Logits of (image, raw image) pairs, read along a condition's direction."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    sides = [config.resolution >> i for i in range(32)]
    sides = [side for side in sides if side >= 4]
    if len(sides) < 2 or sides[-1] != 4:
      raise ConfigError(
        f"resolution={config.resolution} must be a power of two, at least 8"
      )
    widths = [
      stylegan2.num_channels(s, config.channel_base, config.channel_max)
      for s in sides
    ]
    last = widths[-1]
    self.from_image = stylegan2_layers.Conv(6, widths[0], 1, rngs=rngs)
    self.blocks = nnx.List(
      Block(before, after, rngs=rngs)
      for before, after in zip(widths[:-1], widths[1:], strict=True)
    )
    self.conv = stylegan2_layers.Conv(last + 1, last, 3, rngs=rngs)
    self.hidden = stylegan2_layers.Linear(16 * last, last, rngs=rngs)
    labelled = config.label_size > 0
    self.output = stylegan2_layers.Linear(
      last, last if labelled else 1, rngs=rngs
    )
    self.label = (
      LabelMapping(config.label_size, last, config.map_depth, rngs=rngs)
      if labelled
      else None
    )

  def __call__(
    self,
    image: Float[Array, "b h w 3"],
    raw_image: Float[Array, "b r r 3"],
    label: Float[Array, "b l"] | None = None,
  ) -> Float[Array, "b"]:
    """Returns logits, positive for real; `label` if the Config has a size."""
    if (label is None) != (self.label is None):
      raise ConfigError(
        f"label_size={self.config.label_size} but there is "
        f"{'no' if label is None else 'a'} label: make them agree"
      )
    raw_image = jax.image.resize(raw_image, image.shape, "bilinear")
    x = jnp.concatenate([image, raw_image], -1).astype(self.config.dtype)
    x = self.from_image(x)
    for block in self.blocks:
      x = jax.checkpoint(block)(x) if self.config.remat else block(x)
    std = minibatch_std(x, self.config.group_size)
    x = self.conv(jnp.concatenate([x, std], -1))
    x = x.reshape(x.shape[0], -1).astype(jnp.float32)
    logits = self.output(activations.leaky_relu(self.hidden(x)))
    if self.label is None:
      return logits[:, 0]
    direction = self.label(label)
    return jnp.sum(logits * direction, -1) / math.sqrt(logits.shape[-1])
