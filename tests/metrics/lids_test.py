"""Eyes open and close in landmarks."""

import numpy as np
import pytest

from pir_jax.metrics import lids


def _points(gap, width=40.0):
  points = np.zeros((478, 2))
  for x, (upper, lower, outer, inner) in zip((0, 100), lids.EYES, strict=True):
    points[outer], points[inner] = (x, 0), (x + width, 0)
    points[upper], points[lower] = (x + 20, -gap / 2), (x + 20, gap / 2)
  return points


def test_opening_is_a_share_of_the_width():
  assert lids.opening(_points(10.0)) == pytest.approx(0.25)
  assert lids.opening(_points(0.0)) == 0


def test_opening_does_not_depend_on_size_and_place():
  clip = np.stack([_points(10.0), 3 * _points(10.0) + 7, _points(5.0)])
  np.testing.assert_allclose(lids.opening(clip), [0.25, 0.25, 0.125])
