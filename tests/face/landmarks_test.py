"""Linking over time, with a tracker that knows where the faces are."""

import numpy as np
import pytest

from pir_jax.face import detector, landmarks
from pir_jax.types import InputError

PATTERN = np.random.default_rng(0).uniform(-0.5, 0.5, (468, 3))
PATTERN[:4] = [[-0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0], [0.5, -0.5, 0]]
PATTERN[33], PATTERN[263] = [-0.3, 0, 0], [0.3, 0, 0]


class ScriptedTracker(detector.Tracker):
  """Sees the faces of a script: per frame, a list of (x, y, size)."""

  def __init__(self, script):
    self.min_presence = 0.5
    self._script = script

  def _faces(self, image):
    return self._script[int(image[0, 0, 0])]

  def detect(self, image):
    rows = [
      [
        x - s / 2,
        y - s / 2,
        x + s / 2,
        y + s / 2,
        x - s / 5,
        y,
        x + s / 5,
        y,
        1,
      ]
      for x, y, s in self._faces(image)
    ]
    return np.array(rows, np.float32).reshape(-1, 9)

  def refine(self, image, region):
    near = [
      (np.hypot(x - region.x, y - region.y), x, y, s)
      for x, y, s in self._faces(image)
    ]
    if not near or min(near)[0] > 0.5 * min(near)[3]:
      return np.zeros((468, 3), np.float32), 0.0
    _, x, y, size = min(near)
    return (PATTERN * size + [x, y, 0]).astype(np.float32), 0.9


def _track(script, **options):
  frames = (np.full((4, 4, 3), k, np.uint8) for k in range(len(script)))
  return landmarks.track(frames, tracker=ScriptedTracker(script), **options)


def _centre(track):
  return (track.box[:, :2] + track.box[:, 2:]) / 2


def test_largest_face_first_whatever_its_order():
  script = [[(50, 50, 30), (200, 60 + k, 60)] for k in range(10)]
  big, small = _track(script), _track(script, face=1)
  assert big.num_faces == small.num_faces == 2
  np.testing.assert_allclose(_centre(big)[:, 0], 200, atol=1e-3)
  np.testing.assert_allclose(_centre(small)[:, 0], 50, atol=1e-3)


def test_short_gap_is_filled_and_flagged_long_gap_is_not():
  face = [(50.0, 50.0, 40.0)]
  script = [[(50.0 + k, 50.0, 40.0)] for k in range(8)]
  script[3:5] = [[], []]
  track = _track(script)
  np.testing.assert_array_equal(np.flatnonzero(track.interpolated), [3, 4])
  np.testing.assert_allclose(_centre(track)[:, 0], 50 + np.arange(8), atol=1e-3)
  assert (track.presence[3:5] == 0).all()
  script = [face] * 5 + [[]] * 11 + [face] * 5  # 0.44 s.
  track = _track(script)
  assert track.num_faces == 1
  np.testing.assert_array_equal(
    np.isnan(track.landmarks).any((1, 2)), [not s for s in script]
  )


def test_person_is_kept_when_two_pass_each_other():
  # They pass one above the other, and the order of detection swaps.
  script = []
  for k in range(30):
    faces = [(50.0 + 8 * k, 50.0, 40.0), (282.0 - 8 * k, 85.0, 36.0)]
    script.append(faces if k < 15 else faces[::-1])
  track = _track(script)
  np.testing.assert_allclose(
    _centre(track)[:, 0], 50 + 8 * np.arange(30), atol=1e-3
  )


def test_no_face_and_no_such_face_are_sentences():
  with pytest.raises(InputError, match="No face was found in 3 frames"):
    _track([[], [], []])
  with pytest.raises(InputError, match="no face 1"):
    _track([[(50, 50, 30)]] * 3, face=1)


def test_smoothing_keeps_parabolas_and_does_not_lag():
  time = np.arange(30)[:, None, None] * np.ones((1, 2, 3))
  points = (0.1 * time**2 - time).astype(np.float32)
  np.testing.assert_allclose(landmarks.smooth(points, 5), points, atol=1e-3)
  bump = np.exp(-(((time - 15) / 2) ** 2)).astype(np.float32)
  assert landmarks.smooth(bump, 5)[:, 0, 0].argmax() == 15
  # A closure about three frames long keeps 90 % of its depth.
  assert landmarks.smooth(bump, 5).max() > 0.9


def test_smoothing_does_not_reach_over_a_gap():
  points = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
  points[9:11] = np.nan
  apart = np.concatenate(
    [
      landmarks.smooth(points[:9], 5),
      points[9:11],
      landmarks.smooth(points[11:], 5),
    ]
  )
  np.testing.assert_array_equal(landmarks.smooth(points, 5), apart)
