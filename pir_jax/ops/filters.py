"""The [1, 3, 3, 1] low-pass filter: blur, upsample, downsample (upfirdn2d).

b batch, h height, w width, c channels. Each axis is filtered in turn by adding
shifted slices, which XLA can fuse, rather than by a depthwise convolution.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WEIGHTS = (0.125, 0.375, 0.375, 0.125)


def _pad(x, axis, before, after):
  widths = [(0, 0)] * x.ndim
  widths[axis] = (before, after)
  return jnp.pad(x, widths)


def _blur_axis(x, axis, before, after):
  x = _pad(x, axis, before, after)
  size = x.shape[axis] - len(WEIGHTS) + 1
  return sum(
    weight * jax.lax.slice_in_dim(x, i, i + size, axis=axis)
    for i, weight in enumerate(WEIGHTS)
  )


def blur(
  x: Float[Array, "b h w c"], *, before: int = 2, after: int = 1
) -> Float[Array, "b h2 w2 c"]:
  """Filters with `before` and `after` zeros put around each axis."""
  for axis in (1, 2):
    x = _blur_axis(x, axis, before, after)
  return x


def gaussian_blur(
  x: Float[Array, "b h w c"], sigma: Float[Array, ""] | float
) -> Float[Array, "b h w c"]:
  """Weights 2^-(d / sigma)^2 out to floor(3 sigma); the outside is zero.

  A product with a band matrix for each axis, so that sigma need not be known
  when this is compiled; 0 changes nothing.
  """
  sigma = jnp.maximum(sigma, 1e-3)

  def weight(distance):
    inside = jnp.abs(distance) <= jnp.floor(3 * sigma)
    return jnp.where(inside, jnp.exp2(-jnp.square(distance / sigma)), 0.0)

  def band(size):
    places = jnp.arange(size)
    total = jnp.sum(weight(jnp.arange(-size, size + 1)))
    return weight(places[:, None] - places) / total

  _, height, width, _ = x.shape
  return jnp.einsum("ih,jw,bhwc->bijc", band(height), band(width), x)


def blur_phases(
  even: Float[Array, "b h w c"], odd: Float[Array, "b h2 w2 c"], *, axis: int
) -> tuple[Float[Array, "b h3 w3 c"], Float[Array, "b h3 w3 c"]]:
  """`blur` of an axis whose even and odd places are apart, with a gain of 2.

  Args:
    even: places 0, 2, ... of the axis, n of them.
    odd: places -1, 1, 3, ..., n + 1 of them.
    axis: which; the gain makes up for zeros inserted before.

  Returns:
    The even and the odd places of the result, n of each.
  """
  size = even.shape[axis]
  padded = _pad(even, axis, 1, 1)

  def part(x, start):
    return jax.lax.slice_in_dim(x, start, start + size, axis=axis)

  a, b, c, d = (2 * weight for weight in WEIGHTS)
  before, after = part(odd, 0), part(odd, 1)
  return (
    a * part(padded, 0) + b * before + c * even + d * after,
    a * before + b * even + c * after + d * part(padded, 2),
  )


def _upsample_axis(x, axis):
  # Polyphase: even outputs see (x[i - 1], x[i]), odd ones (x[i], x[i + 1]), so
  # the zeros an upsampler inserts are never multiplied.
  size = x.shape[axis]
  padded = _pad(x, axis, 1, 1)
  previous = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
  following = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
  even, odd = 0.25 * previous + 0.75 * x, 0.75 * x + 0.25 * following
  shape = x.shape[:axis] + (2 * size,) + x.shape[axis + 1 :]
  return jnp.stack([even, odd], axis + 1).reshape(shape)


def upsample2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Doubles height and width, keeping the mean; the outside is zero."""
  for axis in (1, 2):
    x = _upsample_axis(x, axis)
  return x


def _downsample_axis(x, axis):
  size = x.shape[axis]
  if size % 2:
    raise ValueError(f"size {size} must be even to be halved: pad or crop it")
  x = _pad(x, axis, 1, 1)
  return sum(
    weight * jax.lax.slice_in_dim(x, i, i + size - 1, stride=2, axis=axis)
    for i, weight in enumerate(WEIGHTS)
  )


def downsample2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Halves even height and width; the outside is zero."""
  for axis in (1, 2):
    x = _downsample_axis(x, axis)
  return x
