"""Trembling shows in accelerations; smooth motion and gaps do not."""

import numpy as np
import pytest

from pir_jax.metrics import jitter


@pytest.fixture
def points():
  """A head that sways, and its detector's noise."""
  time = np.arange(60) / 25
  sway = 30 * np.stack([np.sin(2 * time), np.cos(time)], -1)[:, None]
  noise = np.random.default_rng(0).normal(0, 0.1, (60, 7, 2))
  return np.float32(sway + np.random.default_rng(1).random((7, 2)) + noise)


def test_even_motion_has_none():
  steady = np.arange(9.0)[:, None, None] * np.array([3.0, -1.0])
  found = jitter.acceleration(steady)
  assert np.isnan(found[[0, -1]]).all()
  np.testing.assert_allclose(found[1:-1], 0, atol=1e-12)


def test_known_acceleration():
  time = np.arange(6.0)[:, None, None]
  falling = time**2 * np.array([3.0, 4.0]) / 2
  # The second difference of a t^2 / 2 is a: 3, 4 -> length 5.
  np.testing.assert_allclose(jitter.acceleration(falling)[1:-1], 5)


def test_trembling_adds_and_smoothing_takes_away(points):
  own = jitter.acceleration(points)
  noise = np.random.default_rng(2).normal(0, 0.3, points.shape)
  trembling = points + noise.astype(np.float32)
  assert jitter.ratio(jitter.acceleration(trembling), own) > 1.5
  smooth = points.copy()
  smooth[1:-1] = (points[2:] + points[:-2] + 2 * points[1:-1]) / 4
  assert jitter.ratio(jitter.acceleration(smooth), own) < 0.9
  assert jitter.ratio(own, own) == 1.0
  moved = jitter.acceleration(points + np.float32(40))
  assert jitter.ratio(moved, own) == pytest.approx(1, rel=1e-3)


def test_gaps_are_left_out(points):
  own = jitter.acceleration(points)
  holed = points.copy()
  holed[20] = np.nan
  found = jitter.acceleration(holed)
  assert np.flatnonzero(np.isnan(found)).tolist() == [0, 19, 20, 21, 59]
  assert jitter.ratio(found, own) == pytest.approx(1, rel=1e-6)


def test_frames_that_are_no_neighbours_have_none(points):
  index = np.r_[0:30, 100:130]
  torn = points.copy()
  torn[30:] += 50
  found = jitter.acceleration(torn, index)
  assert np.flatnonzero(np.isnan(found)).tolist() == [0, 29, 30, 59]
  assert np.nanmax(found) < 5


def test_nothing_to_compare_is_not_a_number():
  short = jitter.acceleration(np.zeros((2, 3, 2)))
  assert np.isnan(short).all()
  assert np.isnan(jitter.ratio(short, short))
