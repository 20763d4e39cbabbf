"""Where to sample along a ray: stratified first, then where the matter is.

b batch, s coarse samples, m intervals between them, n fine samples.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def stratified(
  near: float,
  far: float,
  num_samples: int,
  shape: tuple[int, ...],
  *,
  key: Key[Array, ""] | None = None,
) -> Float[Array, "*b s"]:
  """Samples one depth per stratum of [near, far], in rising order.

  Strata start at `num_samples` even steps from near to far, both included, so
  the last one ends a step past `far` (EG3D). Without a key each depth is in
  the middle of its stratum.
  """
  if num_samples < 2:
    raise ValueError(f"num_samples={num_samples} must be at least 2")
  step = (far - near) / (num_samples - 1)
  starts = jnp.linspace(near, far, num_samples)
  shape = (*shape, num_samples)
  if key is None:
    return jnp.broadcast_to(starts + 0.5 * step, shape)
  return starts + step * jax.random.uniform(key, shape)


def smooth_weights(weights: Float[Array, "*b m"]) -> Float[Array, "*b m"]:
  """Spreads weights to their neighbours and adds a floor of 0.01 (mip-NeRF).

  Maximum over pairs, then the mean over pairs, so that thin matter between two
  samples is not missed.
  """
  edge = [(0, 0)] * (weights.ndim - 1) + [(1, 1)]
  padded = jnp.pad(weights, edge, mode="edge")
  peaks = jnp.maximum(padded[..., :-1], padded[..., 1:])
  return 0.5 * (peaks[..., :-1] + peaks[..., 1:]) + 0.01


def invert_cdf(
  edges: Float[Array, "*b m1"],
  weights: Float[Array, "*b m"],
  quantiles: Float[Array, "*b n"],
) -> Float[Array, "*b n"]:
  """Inverts the distribution with piecewise constant density.

  Args:
    edges: rising, one more than weights.
    weights: masses of the bins, up to a common factor; zero is allowed.
    quantiles: in [0, 1].
  """
  mass = weights + 1e-5
  mass /= jnp.sum(mass, -1, keepdims=True)
  below = jnp.cumsum(mass, -1) - mass
  slope = jnp.diff(edges, axis=-1) / mass
  # Every bin contributes the share of its width that lies under the quantile.
  # A sum over all bins has no gather; over the last axis but one, XLA on a CPU
  # does it ten times as fast as over the last.
  past = quantiles[..., None, :] - below[..., :, None]
  offset = jnp.clip(past, 0, mass[..., :, None]) * slope[..., :, None]
  return edges[..., :1] + jnp.sum(offset, -2)


def importance(
  depths: Float[Array, "*b s"],
  weights: Float[Array, "*b m"],
  num_samples: int,
  *,
  as_eg3d: bool = False,
  key: Key[Array, ""] | None = None,
) -> Float[Array, "*b n"]:
  """Samples depths where the rendering weights are, in rising order.

  The weights (m = s - 1, one per interval between coarse samples) are smoothed.
  The bins are these intervals. As in the published EG3D, whose weights have
  learnt it, they are the midpoints of the intervals but the last, and the
  weights' ends are dropped: samples lie half an interval too near.
  No gradient passes. Without a key the quantiles are evenly spaced over [0, 1];
  with one, a random quantile in each of n equal parts (our choice: it has the
  distribution of independent samples, is already sorted, and varies less).
  """
  weights = smooth_weights(jax.lax.stop_gradient(weights))
  depths = jax.lax.stop_gradient(depths)
  edges = depths
  if as_eg3d:
    edges = 0.5 * (depths[..., 1:-1] + depths[..., :-2])
    weights = weights[..., 1:-1]
  shape = (*depths.shape[:-1], num_samples)
  if key is None:
    quantiles = jnp.broadcast_to(jnp.linspace(0, 1, num_samples), shape)
  else:
    jitter = jax.random.uniform(key, shape)
    quantiles = (jnp.arange(num_samples) + jitter) / num_samples
  return invert_cdf(edges, weights, quantiles)
