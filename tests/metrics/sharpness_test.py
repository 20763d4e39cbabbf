"""Blur has less detail than the truth, and only the region counts."""

import numpy as np
import pytest
from scipy import ndimage

from pir_jax.metrics import sharpness


def test_blur_is_less_and_the_truth_one():
  truth = np.random.default_rng(0).random((2, 24, 24, 3))
  mask = np.zeros((2, 24, 24, 1), bool)
  mask[:, 8:16, 8:16] = True
  own = sharpness.energy(truth, mask)
  assert sharpness.ratio(own, own) == 1.0
  blurred = ndimage.gaussian_filter(truth, (0, 1.5, 1.5, 0))
  assert sharpness.ratio(sharpness.energy(blurred, mask), own) < 0.1
  # Beyond the Laplacian's reach outside the mask nothing is looked at.
  outside = np.where(
    np.pad(mask[:, 7:17, 7:17], ((0, 0), (7, 7), (7, 7), (0, 0)), mode="edge"),
    truth,
    0.5,
  )
  outside[:, 7:17, 7:17] = truth[:, 7:17, 7:17]
  found = sharpness.energy(outside, mask)
  np.testing.assert_allclose(found, own)


def test_known_energy():
  ramp = np.arange(9.0)[:, None, None] ** 2 / 100 * np.ones((9, 9, 3))
  mask = np.zeros((1, 9, 9, 1), bool)
  mask[:, 2:7, 2:7] = True
  # The Laplacian of x^2 / 100 is 0.02 everywhere.
  found = sharpness.energy(ramp[None], mask)
  assert found[0] == pytest.approx(0.02**2)


def test_flat_truth_has_no_ratio():
  flat = np.full((1, 8, 8, 3), 0.5)
  mask = np.ones((1, 8, 8, 1), bool)
  none = sharpness.energy(flat, mask)
  assert np.isnan(sharpness.ratio(none, none))
