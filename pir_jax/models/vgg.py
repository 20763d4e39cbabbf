"""VGG and AlexNet features and the learned perceptual distance on them.

LPIPS (Zhang et al. 2018): unit-normalised features, squared differences, one
learned non-negative weight a channel, mean over the image, sum over the taps.

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
  tap: bool = False


_LAYERS = {
  "vgg": (
    _Layer(64),
    _Layer(64, tap=True),
    _Layer(128, pool=(2, 2)),
    _Layer(128, tap=True),
    _Layer(256, pool=(2, 2)),
    _Layer(256),
    _Layer(256, tap=True),
    _Layer(512, pool=(2, 2)),
    _Layer(512),
    _Layer(512, tap=True),
    _Layer(512, pool=(2, 2)),
    _Layer(512),
    _Layer(512, tap=True),
  ),
  "alex": (
    _Layer(64, size=11, stride=4, pad=2, tap=True),
    _Layer(192, size=5, pad=2, pool=(3, 2), tap=True),
    _Layer(384, pool=(3, 2), tap=True),
    _Layer(256, tap=True),
    _Layer(256, tap=True),
  ),
}
NETS = tuple(_LAYERS)
# VGG19 as pix2pixHD taps it: relu1_1, 2_1, 3_1, 4_1, 5_1.
_VGG19 = tuple(
  _Layer(channels, pool=(2, 2) if block and not i else None, tap=not i)
  for block, (channels, num) in enumerate(
    ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))
  )
  for i in range(num)
)
NUM_TAPS = 5


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
  """A network for recognition up to its last tap.

  `quick` computes 3x3 convolutions by tiles on a CPU: for losses, not for
  published distances.

  Attributes:
    dtype: of the activations; what `compare` measures is given them in it.
    remat: for the gradient `compare` keeps only what is between two taps' parts
      of the network, and computes the rest again.
  """

  dtype: str = "float32"
  remat: bool = False

  def __init__(
    self,
    layers: tuple[_Layer, ...],
    *,
    taps: int,
    quick: bool = False,
    rngs: nnx.Rngs,
  ):
    if not 1 <= taps <= NUM_TAPS:
      raise ValueError(f"taps={taps} must be from 1 to {NUM_TAPS}")
    self.taps = taps
    self.quick = quick
    self._specs = _leading(layers, taps)
    self.layers = nnx.List()
    num_in = 3
    for layer in self._specs:
      self.layers.append(Conv(num_in, layer, rngs=rngs))
      num_in = layer.channels

  def prepare(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """From [-1, 1] to what the first layer takes."""
    return image

  def features(
    self, image: Float[Array, "b h w 3"]
  ) -> tuple[Float[Array, "b _h _w _c"], ...]:
    """Activations at the taps of an image in [-1, 1], coarsest last."""
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
    """`measure` of (tap, features of the image, of the target) at every tap."""
    if not self.remat:
      both = zip(*map(self.features, (image, target)), strict=True)
      return [measure(tap, *pair) for tap, pair in enumerate(both)]
    pair = [self.prepare(x).astype(self.dtype) for x in (image, target)]
    found = []
    for tap, (part, pool) in enumerate(self._parts()):

      def step(pair, tap=tap, part=part, pool=pool):
        pair = [self._run(part, x) for x in pair]
        return [pool(x) for x in pair], measure(tap, *pair)

      pair, value = jax.checkpoint(step)(pair)
      found.append(value)
    return found

  def adapted(self, *, dtype: str, remat: bool) -> "Features":
    """The same numbers, to be used in another way."""
    made = nnx.merge(*nnx.split(self))
    made.dtype, made.remat = dtype, remat
    return made

  def _parts(self):
    """The layers up to each tap, and the pooling that comes before the next.

    Pooled, what is kept from part to part is the smallest.
    """
    part, parts = [], []
    for conv, layer in zip(self.layers, self._specs, strict=True):
      part.append((conv, layer))
      if layer.tap:
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
  """pix2pixHD's perceptual network; it is given [-1, 1] as it is."""

  def __init__(
    self, *, taps: int = NUM_TAPS, quick: bool = False, rngs: nnx.Rngs
  ):
    super().__init__(_VGG19, taps=taps, quick=quick, rngs=rngs)


class Lpips(Features):
  """The features at five taps and the distance learned on them.

  `net="vgg"` taps VGG16 after relu1_2, 2_2, 3_3, 4_3 and 5_3; `net="alex"`
  taps AlexNet after every convolution. Fewer `taps` stop early: a cheaper
  training loss that is no longer the published distance.
  """

  def __init__(
    self,
    net: str,
    *,
    taps: int = NUM_TAPS,
    quick: bool = False,
    rngs: nnx.Rngs,
  ):
    if net not in _LAYERS:
      raise ValueError(f"net={net!r} must be one of {NETS}")
    super().__init__(_LAYERS[net], taps=taps, quick=quick, rngs=rngs)
    self.net = net
    self.heads = nnx.List(
      nnx.Param(jnp.full(layer.channels, 1 / layer.channels))
      for layer in self._specs
      if layer.tap
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
    tap: int,
    features: Float[Array, "b h w c"],
    other: Float[Array, "b h w c"],
  ) -> Float[Array, "b"]:
    """What the features of one tap add to the distance."""
    ours, theirs = (unit(x.astype(jnp.float32)) for x in (features, other))
    difference = jnp.square(ours - theirs)
    return jnp.mean(difference @ self.heads[tap][...], axis=(1, 2))


def _leading(layers: tuple[_Layer, ...], taps: int) -> tuple[_Layer, ...]:
  """Up to the last of so many taps."""
  places = [i for i, layer in enumerate(layers) if layer.tap]
  return layers[: places[taps - 1] + 1]


def unit(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
  """Scales the last axis to length 1; a zero vector stays zero."""
  # The floor keeps the gradient of the square root finite at a zero vector.
  square = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-20)
  return x / (jnp.sqrt(square) + 1e-10)
