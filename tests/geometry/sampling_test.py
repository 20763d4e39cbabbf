"""Stratified depths and the inverse of a piecewise constant distribution."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

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


def test_one_sample_has_no_strata():
  with pytest.raises(ValueError, match="at least 2"):
    sampling.stratified(1.0, 2.0, 1, (3,))


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters("random", "spike", "zero", "huge")
  def test_inverse_agrees_with_float64(self, kind):
    rng = np.random.default_rng(0)
    edges = np.sort(rng.uniform(2, 3, (4, 13)), -1).astype(np.float32)
    weights = {
      "random": rng.uniform(0, 1, (4, 12)),
      "spike": np.eye(12)[[0, 3, 7, 11]],
      "zero": np.zeros((4, 12)),
      "huge": 1e6 * rng.uniform(0.1, 1, (4, 12)),
    }[kind].astype(np.float32)
    quantiles = np.linspace(0, 1, 21, dtype=np.float32)
    got = self.variant(sampling.invert_cdf)(
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

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(seed=[None, 0], as_eg3d=[True, False])
  def test_importance_samples_as_often_as_the_smoothed_weights(
    self, seed, as_eg3d
  ):
    num = 64
    key = None if seed is None else jax.random.key(seed)
    got = self.variant(
      lambda z, w: sampling.importance(z, w, num, as_eg3d=as_eg3d, key=key)
    )(jnp.linspace(0.0, 1.0, 33)[None], jnp.zeros((1, 32)).at[0, 16].set(1.0))[
      0
    ]
    assert np.all(np.diff(got) >= -1e-6)
    # Smoothed: 1.01 in the spike's interval, 0.51 beside it, 0.01 in the other
    # 29, of which EG3D's drops two. Its bins lie half an interval nearer: 16 is
    # [15.5, 16.5] / 32, 1 / 64 to either side of 0.5.
    middle, total = (0.5, 2.30) if as_eg3d else (16.5 / 32, 2.32)
    for mass, half_width in ((1.01, 0.5), (2.03, 1.5)):
      share = np.mean(np.abs(np.asarray(got) - middle) <= half_width / 32)
      # Quantiles are one in each of 64 parts: one sample at either end of the
      # bins may fall to either side.
      np.testing.assert_allclose(share, mass / total, atol=2 / num)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(0.0, 0.3, 0.5, 0.9)
  def test_samples_lie_about_a_thin_shell(self, place):
    depths = jnp.linspace(2.0, 3.0, 17)[None]
    shell = depths[0, 6] + place / 16
    weights = jnp.zeros((1, 16)).at[0, 6].set(1.0)
    got = self.variant(lambda z, w: sampling.importance(z, w, 512))(
      depths, weights
    )
    # The interval of the shell is all that is known of its place.
    assert abs(np.median(got) - shell) <= 0.5 / 16 + 1e-3
    assert abs(np.median(got) - depths[0, 6] - 0.5 / 16) < 1e-3

  @chex.variants(with_jit=True, without_jit=True)
  def test_smoothing_spreads_a_spike_to_both_sides(self):
    got = self.variant(sampling.smooth_weights)(
      jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])
    )
    np.testing.assert_allclose(got, [0.01, 0.51, 1.01, 0.51, 0.01], rtol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_random_depths_rise_and_stay_in_their_strata(self):
    got = self.variant(
      lambda key: sampling.stratified(1.0, 2.0, 9, (50,), key=key)
    )(jax.random.key(0))
    starts = np.linspace(1, 2, 9)
    # One unit in the last place below a stratum's start is rounding.
    assert np.all(got >= starts - 1e-6) and np.all(got <= starts + 0.125 + 1e-6)
    # Uniform: 0.125 / sqrt(12), which 450 samples know to 1 / sqrt(900) or so.
    std = np.std(np.asarray(got) - starts)
    np.testing.assert_allclose(std, 0.125 / np.sqrt(12), rtol=0.1)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(depths, weights):
    fine = sampling.invert_cdf(depths, weights, jnp.linspace(0, 1, 5)[None])
    spread = sampling.smooth_weights(weights)
    return jnp.sum(fine) + jnp.sum(spread)

  gradients = jax.jit(jax.value_and_grad(total, (0, 1)))
  weights = jnp.full((1, 8), abs(extreme))
  # Rising depths, and a ray without length.
  for depths in (jnp.linspace(0.0, 1.0, 9), jnp.full(9, extreme)):
    chex.assert_tree_all_finite(gradients(depths[None], weights))
    chex.assert_tree_all_finite(
      sampling.importance(depths[None], weights, 4, key=jax.random.key(0))
    )


def test_no_gradient_passes_through_importance():
  depths = jnp.linspace(0.0, 1.0, 9)[None]
  gradient = jax.grad(lambda w: jnp.sum(sampling.importance(depths, w, 8)))(
    jnp.ones((1, 8))
  )
  np.testing.assert_array_equal(gradient, 0)
