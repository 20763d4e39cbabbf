"""Volume rendering: densities along a ray -> weights -> what the ray sees.

b batch, s samples along a ray, m = s - 1 intervals between them, c channels.
Colours and densities are averaged over the two ends of an interval (EG3D).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rendering(NamedTuple):
  """What each ray sees.

  Attributes:
    feature: expected colour, where nothing is seen 0.
    depth: expected distance, where nothing is seen the last sample's.
    weight_sum: 1 where the ray ends in matter, 0 where it sees nothing.
  """

  feature: Float[Array, "*b c"]
  depth: Float[Array, "*b"]
  weight_sum: Float[Array, "*b"]


def interval_weights(
  densities: Float[Array, "*b s"], depths: Float[Array, "*b s"]
) -> Float[Array, "*b m"]:
  """Returns the chance that the ray ends in each interval.

  Args:
    densities: before activation; the density is softplus(x - 1), of the mean
      of the two ends.
    depths: rising.
  """
  middle = 0.5 * (densities[..., 1:] + densities[..., :-1])
  optical = jax.nn.softplus(middle - 1) * jnp.diff(depths, axis=-1)
  # exp of a sum, not a product of (1 - alpha): its gradient has no division by
  # a transmittance that has underflowed.
  before = jnp.cumsum(optical, -1) - optical
  return -jnp.expm1(-optical) * jnp.exp(-before)


def sample_weights(intervals: Float[Array, "*b m"]) -> Float[Array, "*b s"]:
  """Gives each interval's weight to its two ends, half and half."""
  edge = [(0, 0)] * (intervals.ndim - 1)
  left = jnp.pad(intervals, [*edge, (0, 1)])
  right = jnp.pad(intervals, [*edge, (1, 0)])
  return 0.5 * (left + right)


def expected_depth(
  intervals: Float[Array, "*b m"], depths: Float[Array, "*b s"]
) -> Float[Array, "*b"]:
  """Averages depth by the weights; the last depth where all are zero."""
  middle = 0.5 * (depths[..., 1:] + depths[..., :-1])
  total = jnp.sum(intervals, -1)
  seen = total > 0
  mean = jnp.sum(intervals * middle, -1) / jnp.where(seen, total, 1.0)
  return jnp.where(seen, mean, depths[..., -1])


def render(
  colors: Float[Array, "*b s c"],
  densities: Float[Array, "*b s"],
  depths: Float[Array, "*b s"],
) -> Rendering:
  """Composites samples that lie in rising order of depth."""
  intervals = interval_weights(densities, depths)
  feature = jnp.einsum("...s,...sc->...c", sample_weights(intervals), colors)
  return Rendering(
    feature, expected_depth(intervals, depths), jnp.sum(intervals, -1)
  )


# A gather both ways: the gradient JAX would derive is a scatter, which XLA does
# slowly on a CPU.
@jax.custom_vjp
def _permute(x, order, inverse):
  del inverse
  return jnp.take_along_axis(x, order, -1)


def _permute_forward(x, order, inverse):
  return _permute(x, order, inverse), (order, inverse)


def _permute_backward(residuals, gradient):
  order, inverse = residuals
  return jnp.take_along_axis(gradient, inverse, -1), None, None


_permute.defvjp(_permute_forward, _permute_backward)


def merge_order(
  first: Float[Array, "*b s"], second: Float[Array, "*b n"]
) -> tuple[Int[Array, "*b sn"], Int[Array, "*b sn"]]:
  """Returns the order that sorts two concatenated rising lists, its inverse.

  By counting, without a sort: a value's place is its place in its own list and
  the number of values of the other that come before. Equal values keep their
  order.
  """
  num_first, num_second = first.shape[-1], second.shape[-1]
  # One value of the other list at a time: no array of all pairs is made.
  rank_first = jnp.arange(num_first) + sum(
    (second[..., i : i + 1] < first).astype(int) for i in range(num_second)
  )
  rank_second = jnp.arange(num_second) + sum(
    (first[..., i : i + 1] <= second).astype(int) for i in range(num_first)
  )
  inverse = jnp.concatenate([rank_first, rank_second], -1)
  rows = inverse.reshape(-1, num_first + num_second)
  places = jnp.broadcast_to(jnp.arange(rows.shape[-1]), rows.shape)
  order = jnp.zeros_like(rows)
  order = order.at[jnp.arange(len(rows))[:, None], rows].set(
    places, unique_indices=True
  )
  return order.reshape(inverse.shape), inverse


def render_merged(
  colors: tuple[Float[Array, "*b s c"], Float[Array, "*b n c"]],
  densities: tuple[Float[Array, "*b s"], Float[Array, "*b n"]],
  depths: tuple[Float[Array, "*b s"], Float[Array, "*b n"]],
) -> Rendering:
  """Composites the union of two passes, each in rising order of depth.

  Only depths and densities are put in order; the weights go back to where the
  colours are, which are many times larger and so stay in place.
  """
  order, inverse = merge_order(*depths)
  ordered = _permute(jnp.concatenate(depths, -1), order, inverse)
  density = _permute(jnp.concatenate(densities, -1), order, inverse)
  intervals = interval_weights(density, ordered)
  weights = _permute(sample_weights(intervals), inverse, order)
  split = depths[0].shape[-1]
  feature = jnp.einsum(
    "...s,...sc->...c", weights[..., :split], colors[0]
  ) + jnp.einsum("...s,...sc->...c", weights[..., split:], colors[1])
  return Rendering(
    feature, expected_depth(intervals, ordered), jnp.sum(intervals, -1)
  )
