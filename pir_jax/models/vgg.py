"""VGG and AlexNet features and the learned perceptual distance on them.

LPIPS (Zhang et al. 2018): unit-normalised features, squared differences, one
learned non-negative weight a channel, mean over the image, sum over the
feature layers: those whose activations are compared.

b batch, h height, w width, c channels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pir_jax.ops import convolution, pooling
from pir_jax.types import ConfigError

# What the published networks were trained on, for an image in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@dataclasses.dataclass(frozen=True)
class _Layer:
  channels: int
  size: int = 3
  stride: int = 1
  pad: int = 1
  pool: tuple[int, int] | None = None  # (size, stride) of the pooling before
  feature: bool = False  # Whether its activations are returned.


_LAYERS = {
  "vgg": (
    _Layer(64),
    _Layer(64, feature=True),
    _Layer(128, pool=(2, 2)),
    _Layer(128, feature=True),
    _Layer(256, pool=(2, 2)),
    _Layer(256),
    _Layer(256, feature=True),
    _Layer(512, pool=(2, 2)),
    _Layer(512),
    _Layer(512, feature=True),
    _Layer(512, pool=(2, 2)),
    _Layer(512),
    _Layer(512, feature=True),
  ),
  "alex": (
    _Layer(64, size=11, stride=4, pad=2, feature=True),
    _Layer(192, size=5, pad=2, pool=(3, 2), feature=True),
    _Layer(384, pool=(3, 2), feature=True),
    _Layer(256, feature=True),
    _Layer(256, feature=True),
  ),
}
NETS = tuple(_LAYERS)
# VGG19 with pix2pixHD's feature layers: relu1_1, 2_1, 3_1, 4_1, 5_1.
_VGG19 = tuple(
  _Layer(channels, pool=(2, 2) if block and not i else None, feature=not i)
  for block, (channels, num) in enumerate(
    ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))
  )
  for i in range(num)
)
NUM_LAYERS = 5


class Conv(nnx.Module):
  """Convolution with zero edges."""

  def __init__(self, num_in: int, layer: _Layer, *, rngs: nnx.Rngs):
    shape = (layer.size, layer.size, num_in, layer.channels)
    self.kernel = nnx.Param(
      jax.nn.initializers.he_normal()(rngs.params(), shape)
    )
    self.bias = nnx.Param(jnp.zeros(layer.channels))

  def __call__(
    self, x: Float[Array, "b h w c"], stride: int, pad: int, quick: bool
  ) -> Float[Array, "b h2 w2 c2"]:
    y = convolution.conv2d(
      x,
      self.kernel[...].astype(x.dtype),
      stride=stride,
      padding=((pad, pad), (pad, pad)),
      quick=quick,
    )
    return y + self.bias.astype(x.dtype)


class Features(nnx.Module):
  """A network for recognition up to its last feature layer.

  `quick` computes 3x3 convolutions by tiles on a CPU: for losses, not for
  published distances.

  Attributes:
    dtype: of the activations, those that `compare` measures included.
    remat: for the gradient `compare` keeps only what passes from one feature
      layer's part of the network to the next, and computes the rest again.
  """

  dtype: str = "float32"
  remat: bool = False

  def __init__(
    self,
    layers: tuple[_Layer, ...],
    *,
    num_layers: int,
    quick: bool = False,
    rngs: nnx.Rngs,
  ):
    if not 1 <= num_layers <= NUM_LAYERS:
      raise ConfigError(
        f"num_layers={num_layers} must be from 1 to {NUM_LAYERS}"
      )
    self.num_layers = num_layers
    self.quick = quick
    self._specs = _leading(layers, num_layers)
    self.layers = nnx.List()
    num_in = 3
    for layer in self._specs:
      self.layers.append(Conv(num_in, layer, rngs=rngs))
      num_in = layer.channels

  def prepare(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Maps [-1, 1] to what the first layer takes."""
    return image

  def features(
    self, image: Float[Array, "b h w 3"]
  ) -> tuple[Float[Array, "b _h _w _c"], ...]:
    """Computes the feature layers of an image in [-1, 1], coarsest last."""
    x = self.prepare(image).astype(self.dtype)
    features = []
    for part, pool in self._parts():
      x = self._run(part, x)
      features.append(x)
      x = pool(x)
    return tuple(features)

  def compare(
    self,
    image: Float[Array, "b h w 3"],
    target: Float[Array, "b h w 3"],
    measure: Callable[[int, Array, Array], Any],
  ) -> list[Any]:
    """Measures (layer index, the image's features, the target's) by layer."""
    if not self.remat:
      both = zip(*map(self.features, (image, target)), strict=True)
      return [measure(index, *pair) for index, pair in enumerate(both)]
    pair = [self.prepare(x).astype(self.dtype) for x in (image, target)]
    values = []
    for index, (part, pool) in enumerate(self._parts()):

      def step(pair, index=index, part=part, pool=pool):
        pair = [self._run(part, x) for x in pair]
        return [pool(x) for x in pair], measure(index, *pair)

      pair, value = jax.checkpoint(step)(pair)
      values.append(value)
    return values

  def adapted(self, *, dtype: str, remat: bool) -> "Features":
    """Returns a network of the same parameters with other options."""
    made = nnx.merge(*nnx.split(self))
    made.dtype, made.remat = dtype, remat
    return made

  def _parts(self):
    """Yields the layers up to each feature layer and the pooling after them.

    Pooled, what is kept from part to part is the smallest.
    """
    part, parts = [], []
    for conv, layer in zip(self.layers, self._specs, strict=True):
      part.append((conv, layer))
      if layer.feature:
        parts.append(part)
        part = []
    first = [part[0][1].pool for part in parts[1:]]
    for part, pool in zip(parts, [*first, None], strict=True):
      yield part, lambda x, pool=pool: pooling.max_pool(x, *pool) if pool else x

  def _run(self, part, x):
    for i, (conv, layer) in enumerate(part):
      if layer.pool and i:  # The first one's is done already.
        x = pooling.max_pool(x, *layer.pool)
      x = jax.nn.relu(conv(x, layer.stride, layer.pad, self.quick))
    return x


class Vgg19(Features):
  """pix2pixHD's perceptual network; images in [-1, 1] are not shifted."""

  def __init__(
    self, *, num_layers: int = NUM_LAYERS, quick: bool = False, rngs: nnx.Rngs
  ):
    super().__init__(_VGG19, num_layers=num_layers, quick=quick, rngs=rngs)


class Lpips(Features):
  """Five feature layers and the distance learned on them.

  `net="vgg"`: VGG16 after relu1_2, 2_2, 3_3, 4_3 and 5_3; `net="alex"`: AlexNet
  after every convolution. A smaller `num_layers` stops early: a cheaper
  training loss that is no longer the published distance.
  """

  def __init__(
    self,
    net: str,
    *,
    num_layers: int = NUM_LAYERS,
    quick: bool = False,
    rngs: nnx.Rngs,
  ):
    if net not in _LAYERS:
      raise ConfigError(f"net={net!r} must be one of {NETS}")
    super().__init__(
      _LAYERS[net], num_layers=num_layers, quick=quick, rngs=rngs
    )
    self.net = net
    self.heads = nnx.List(
      nnx.Param(jnp.full(layer.channels, 1 / layer.channels))
      for layer in self._specs
      if layer.feature
    )

  def prepare(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Normalises as in the published networks' training."""
    return (image - jnp.array(_SHIFT)) / jnp.array(_SCALE)

  def __call__(
    self,
    image: Float[Array, "b h w 3"],
    other: Float[Array, "b h w 3"],
  ) -> Float[Array, "b"]:
    """Perceptual distance of two images in [-1, 1]; 0 where they are equal."""
    return sum(self.compare(image, other, self.distance))

  def distance(
    self,
    layer_index: int,
    features: Float[Array, "b h w c"],
    other: Float[Array, "b h w c"],
  ) -> Float[Array, "b"]:
    """Returns what the features of one layer add to the distance."""
    ours, theirs = (unit(x.astype(jnp.float32)) for x in (features, other))
    difference = jnp.square(ours - theirs)
    return jnp.mean(difference @ self.heads[layer_index][...], axis=(1, 2))


def _leading(layers: tuple[_Layer, ...], num_layers: int) -> tuple[_Layer, ...]:
  """Returns the layers up to the last of so many feature layers."""
  places = [i for i, layer in enumerate(layers) if layer.feature]
  return layers[: places[num_layers - 1] + 1]


def unit(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
  """Scales the last axis to length 1; a zero vector stays zero."""
  # The floor keeps the gradient of the square root finite at a zero vector.
  square = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-20)
  return x / (jnp.sqrt(square) + 1e-10)
