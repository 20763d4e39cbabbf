"""Windows of speech are joined without a seam."""

import numpy as np

from pir_jax.stages import speech


def test_crossfade_goes_from_left_to_right():
  left, right = np.zeros((1, 4, 1)), np.ones((1, 6, 1))
  out = speech._crossfaded(left, right)[0, :, 0]
  np.testing.assert_allclose(out, [0.125, 0.375, 0.625, 0.875, 1, 1])


def test_crossfade_of_equal_halves_changes_nothing():
  x = np.random.default_rng(0).normal(size=(1, 9, 3)).astype(np.float32)
  # Two shares that sum to one, in float32.
  np.testing.assert_allclose(speech._crossfaded(x[:, :4], x), x, atol=1e-6)
  np.testing.assert_array_equal(speech._crossfaded(x[:, :0], x), x)
