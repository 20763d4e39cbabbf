"""Mouth distance of known displacements."""

import numpy as np
import pytest

from pir_jax.metrics import landmarks


def _points():
  return np.random.default_rng(0).normal(size=(4, 20, 2))


def test_moving_the_whole_mouth_costs_nothing():
  points = _points()
  moved = points + np.random.default_rng(1).normal(size=(4, 1, 2))
  assert landmarks.mouth_distance(moved, points) == pytest.approx(0, abs=1e-12)


def test_opening_lips_cost_the_mean_displacement():
  truth, points = np.zeros((3, 20, 2)), np.zeros((3, 20, 2))
  points[:, :10, 1], points[:, 10:, 1] = 3, -3
  assert landmarks.mouth_distance(points, truth) == pytest.approx(3)
  # Half the frames open: half the cost; the unit of the points is kept.
  points[0] = 0
  assert landmarks.mouth_distance(points, truth) == pytest.approx(2)
  assert landmarks.mouth_distance(7 * points, truth) == pytest.approx(14)


def test_frames_without_a_face_are_left_out():
  truth, points = _points(), 1.5 * _points()
  broken = points.copy()
  broken[1, 3] = np.nan
  keep = [0, 2, 3]
  assert landmarks.mouth_distance(broken, truth) == pytest.approx(
    landmarks.mouth_distance(points[keep], truth[keep])
  )
  with pytest.raises(ValueError, match="no frame"):
    landmarks.mouth_distance(np.full_like(truth, np.nan), truth)
