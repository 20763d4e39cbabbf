"""Feature matching: its weights, and that the target is held still."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.losses import feature_matching


def _features(value, num_scales, num_layers):
  layer = jnp.full((2, 3, 3, 1), value)
  return [[layer] * num_layers] * num_scales


def test_a_gap_of_one_everywhere_costs_four():
  # 4 / layers, summed over layers, averaged over scales: whatever their number.
  for sizes in ((1, 4), (3, 4), (2, 5)):
    value = feature_matching.feature_matching(
      _features(1.0, *sizes), _features(0.0, *sizes)
    )
    np.testing.assert_allclose(value, [4, 4], rtol=1e-6)


def test_no_gradient_flows_to_the_target():
  ours, theirs = _features(1.0, 2, 3), _features(0.0, 2, 3)
  gradient, still = jax.grad(
    lambda a, b: feature_matching.feature_matching(a, b).sum(), (0, 1)
  )(ours, theirs)
  assert all((g > 0).all() for g in jax.tree.leaves(gradient))
  assert all((g == 0).all() for g in jax.tree.leaves(still))
