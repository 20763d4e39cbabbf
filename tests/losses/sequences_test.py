"""Errors of sequences count valid frames only."""

import jax.numpy as jnp
import numpy as np

from pir_jax.losses import sequences


def test_only_valid_frames_count_and_none_gives_zero():
  prediction = jnp.zeros((2, 3, 2)).at[0, 0].set(2.0).at[0, 2].set(100.0)
  valid = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
  error = sequences.squared_error(prediction, jnp.zeros((2, 3, 2)), valid)
  # Two valid frames, one of them off by 2 in both coefficients.
  np.testing.assert_allclose(error, [2.0, 0.0])
