"""Frames of the training part come as often as they should."""

import numpy as np

from pir_jax.data import sources
from pir_jax.metrics import lids


def _landmarks(openings):
  points = np.zeros((len(openings), 478, 2))
  for upper, lower, outer, inner in lids.EYES:
    points[:, inner, 0] = 1.0
    points[:, upper, 1] = openings
    points[:, lower, 1] = points[:, outer, 1] = 0.0
  return points


def test_shut_eyes_are_a_quarter_of_the_frames():
  openings = np.full(100, 0.4)
  openings[[7, 8, 9, 30, 31, 32]] = 0.2
  frames = sources._more_blinks(np.arange(100) + 50, _landmarks(openings))
  shut = np.isin(frames, np.array([7, 8, 9, 30, 31, 32]) + 50)
  assert 0.2 < shut.mean() < 0.3
  assert set(frames) == set(range(50, 150))


def test_a_single_shut_frame_is_not_learnt_by_heart():
  openings = np.full(100, 0.4)
  openings[7] = 0.1
  frames = sources._more_blinks(np.arange(100), _landmarks(openings))
  assert (frames == 7).sum() == 8 and len(frames) == 107


def test_eyes_that_never_shut_and_other_meshes_change_nothing():
  frames = np.arange(5)
  for landmarks in (_landmarks(np.full(5, 0.4)), np.zeros((5, 68, 2))):
    same = sources._more_blinks(frames, landmarks)
    np.testing.assert_array_equal(same, frames)
