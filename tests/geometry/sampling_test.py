"""Stratified depths and the inverse of a piecewise constant distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.geometry import sampling


def _reference_inverse(edges, weights, quantiles):
  """Textbook inverse CDF in float64."""
  mass = weights.astype(np.float64) + 1e-5
  cdf = np.concatenate([[0], np.cumsum(mass / mass.sum())])
  return np.interp(quantiles, cdf, edges.astype(np.float64))


def test_without_a_key_depths_are_in_the_middle_of_strata():
  got = sampling.stratified(1.0, 2.0, 5, (3,))
  want = np.linspace(1, 2, 5) + 0.125
  np.testing.assert_allclose(got, np.broadcast_to(want, (3, 5)), rtol=1e-6)


def test_random_depths_rise_and_stay_in_their_strata():
  got = sampling.stratified(1.0, 2.0, 9, (50,), key=jax.random.key(0))
  starts = np.linspace(1, 2, 9)
  # One unit in the last place below a stratum's start is rounding.
  assert np.all(got >= starts - 1e-6) and np.all(got <= starts + 0.125 + 1e-6)
  assert np.std(np.asarray(got)[:, 3]) > 0.02  # 0.125 / sqrt(12) = 0.036.


def test_one_sample_has_no_strata():
  with pytest.raises(ValueError, match="at least 2"):
    sampling.stratified(1.0, 2.0, 1, (3,))


@pytest.mark.parametrize("kind", ["random", "spike", "zero", "huge"])
def test_inverse_agrees_with_float64(kind):
  rng = np.random.default_rng(0)
  edges = np.sort(rng.uniform(2, 3, (4, 13)), -1).astype(np.float32)
  weights = {
    "random": rng.uniform(0, 1, (4, 12)),
    "spike": np.eye(12)[[0, 3, 7, 11]],
    "zero": np.zeros((4, 12)),
    "huge": 1e6 * rng.uniform(0.1, 1, (4, 12)),
  }[kind].astype(np.float32)
  quantiles = np.linspace(0, 1, 21, dtype=np.float32)
  got = sampling.invert_cdf(
    *map(jnp.asarray, (edges, weights, np.tile(quantiles, (4, 1))))
  )
  want = [
    _reference_inverse(e, w, quantiles)
    for e, w in zip(edges, weights, strict=True)
  ]
  # Where the density is 1e-5 of the peak, a rounding of 6e-8 in the quantile
  # moves the depth by 6e-3 of a bin: the spike needs the wider tolerance.
  atol = 3e-3 if kind == "spike" else 1e-5
  np.testing.assert_allclose(got, want, atol=atol)
  assert np.all(np.diff(got, axis=-1) >= -1e-6)


@pytest.mark.parametrize("key", [None, 0])
def test_importance_gathers_at_the_wall(key):
  depths = jnp.linspace(0.0, 1.0, 33)[None]
  weights = jnp.zeros((1, 32)).at[0, 16].set(1.0)
  got = sampling.importance(
    depths, weights, 64, key=None if key is None else jax.random.key(key)
  )
  near = np.abs(np.asarray(got) - 0.5) < 0.07
  # The floor of 0.01 in 31 bins against a mass of about 2: 3 in 4 or more.
  assert near.mean() > 0.75
  assert np.all(np.diff(got, axis=-1) >= -1e-6)


def test_no_gradient_passes_through_importance():
  depths = jnp.linspace(0.0, 1.0, 9)[None]
  gradient = jax.grad(lambda w: jnp.sum(sampling.importance(depths, w, 8)))(
    jnp.ones((1, 8))
  )
  np.testing.assert_array_equal(gradient, 0)


def test_smoothing_spreads_a_spike_to_both_sides():
  got = sampling.smooth_weights(jnp.array([0.0, 0.0, 1.0, 0.0, 0.0]))
  np.testing.assert_allclose(got, [0.01, 0.51, 1.01, 0.51, 0.01], rtol=1e-6)
