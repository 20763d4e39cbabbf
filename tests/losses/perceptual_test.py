"""Perceptual L1: its weights, and that the target is held still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.losses import perceptual


def _layers(value):
  return [jnp.full((2, 8 // 2**i + 1, 3, i + 1), value) for i in range(5)]


def test_a_gap_of_one_everywhere_costs_the_sum_of_the_weights():
  value = perceptual.feature_l1(_layers(1.0), _layers(0.0))
  np.testing.assert_allclose(value, [1 + 15 / 32] * 2, rtol=1e-6)
  value = perceptual.feature_l1(
    _layers(1.0), _layers(0.0), [0.0, 0.0, 3.0, 0.0, 0.0]
  )
  np.testing.assert_allclose(value, [3, 3], rtol=1e-6)


def test_no_gradient_flows_to_the_target():
  still = jax.grad(lambda b: perceptual.feature_l1(_layers(1.0), b).sum())(
    _layers(0.0)
  )
  assert all((g == 0).all() for g in jax.tree.leaves(still))


def test_weights_must_match_the_layers():
  with pytest.raises(ValueError, match="as many weights"):
    perceptual.feature_l1(_layers(1.0)[:2], _layers(0.0)[:2])
