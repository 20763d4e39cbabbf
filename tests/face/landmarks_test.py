"""Linking over time, with a tracker that knows where the faces are."""

import numpy as np
import pytest

from pir_jax.face import detector, eyelids, landmarks, shots, tracklets
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


class OpenEyes(eyelids.Eyes):
  """Leaves the eyelids as they are."""

  def __init__(self):
    pass

  def refine(self, image, points):
    return points


def _track(script, **options):
  frames = (np.full((4, 4, 3), k, np.uint8) for k in range(len(script)))
  return landmarks.track(
    frames, tracker=ScriptedTracker(script), eyes=OpenEyes(), **options
  )


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


def test_a_face_that_returns_elsewhere_is_not_drawn_in_between():
  script = [[(50.0, 50.0, 40.0)]] * 5 + [[]] * 3 + [[(150.0, 50.0, 40.0)]] * 5
  track = _track(script)
  assert track.num_faces == 1 and not track.interpolated.any()


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
  with pytest.raises(InputError, match="No face was detected in 3 frames"):
    _track([[], [], []])
  with pytest.raises(InputError, match="no face 1"):
    _track([[(50, 50, 30)]] * 3, face=1)


def test_a_track_is_the_same_in_memory_and_on_disk(monkeypatch):
  script = [[(50.0 + k % 7, 50.0 + k % 5, 40.0)] for k in range(60)]
  script[20:23] = [[], [], []]
  script[40:55] = [[]] * 15
  want = _track(script)
  assert not isinstance(want.landmarks, np.memmap)
  monkeypatch.setattr(landmarks, "_IN_MEMORY", 0)
  monkeypatch.setattr(tracklets, "_IN_MEMORY", 1)
  monkeypatch.setattr(landmarks, "_PIECE", 11)
  got = _track(script)
  assert isinstance(got.landmarks, np.memmap)
  for name, value in want._asdict().items():
    np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)


def _cut_after(monkeypatch, num):
  """Makes a shot begin after that many frames."""

  def split(frames):
    for k, frame in enumerate(frames):
      yield frame, k in (0, num)

  monkeypatch.setattr(shots, "split", split)


def _sections(script, **options):
  frames = (np.full((4, 4, 3), k, np.uint8) for k in range(len(script)))
  return landmarks.sections(
    frames, tracker=ScriptedTracker(script), eyes=OpenEyes(), **options
  )


def _rows(sections, name):
  return np.concatenate(
    [getattr(x.track, name)[x.inner] for x in sections], axis=0
  )


def _moving():
  """A face that comes late, is lost for a moment and for long, and jumps."""
  script = [[(100 + k % 7, 90 - k % 5, 60)] for k in range(100)]
  for gone in (*range(9), *range(30, 34), *range(55, 78)):
    script[gone] = []
  script[90:] = [[(300, 90, 60)]] * 10
  return script


def test_sections_are_what_the_whole_clip_is(monkeypatch):
  monkeypatch.setattr(
    shots, "_is_cut", lambda before, after: bool(before[-1][0, 0, 0] == 44)
  )
  monkeypatch.setattr(landmarks, "_ENOUGH", 0.2)
  script = _moving()
  whole = _track(script)
  parts = list(_sections(script, length=16, margin=12, expected=whole.look))
  assert [x.first for x in parts] == [0, 4, 20, 36, 52, 68]
  assert [x.inner.stop - x.inner.start for x in parts] == [16] * 5 + [20]
  for name in ("landmarks", "presence", "box", "interpolated", "shot"):
    np.testing.assert_array_equal(_rows(parts, name), getattr(whole, name))
  assert whole.interpolated.any() and whole.shot.any()
  assert not whole.present[60:70].any()  # A section without the face.


def test_the_first_section_waits_for_the_person():
  script = [[] for _ in range(50)] + [[(100, 90, 60)]] * 70
  look = _track(script).look
  parts = list(_sections(script, length=10, margin=4, expected=look))
  # Of a second; until then it looks at twice as much each time.
  counts = [x.inner.stop - x.inner.start for x in parts]
  assert counts == [80, 10, 10, 10, 10]
  assert parts[0].track.present[50:80].all()


def test_who_somebody_is_depends_on_all_that_was_seen():
  """Another one who is alike is not taken for who left the picture."""
  script = [[(100, 90, 60), (300, 90, 40)]] * 80 + [[(300, 90, 40)]] * 20
  big = _track(script)
  parts = list(_sections(script, length=30, margin=4, expected=big.look))
  np.testing.assert_array_equal(_rows(parts, "box"), big.box)
  assert not _rows(parts, "presence")[80:].any()


def test_whoever_is_nowhere_is_an_error_before_anything_is_yielded():
  look = np.zeros_like(_track(_moving()).look)
  look[0] = 1
  for script, message in ((_moving(), "somebody else"), ([[]] * 40, "No face")):
    with pytest.raises(InputError, match=message):
      next(_sections(script, length=16, margin=4, expected=look))


def test_nothing_is_linked_by_place_across_a_cut(monkeypatch):
  # Lost just before the cut and found at the same place just after it.
  script = [[(50.0, 50.0, 40.0)]] * 6 + [[]] * 2 + [[(50.0, 50.0, 40.0)]] * 6
  assert _track(script).interpolated.sum() == 2
  _cut_after(monkeypatch, 7)
  track = _track(script)
  assert track.num_faces == 1 and not track.interpolated.any()
  np.testing.assert_array_equal(track.shot, [0] * 7 + [1] * 7)
  np.testing.assert_array_equal(np.flatnonzero(~track.present), [6, 7])


def test_nothing_is_smoothed_across_a_cut(monkeypatch):
  # The person stands elsewhere after the cut, and trembles on either side.
  rng = np.random.default_rng(0)
  script = [
    [(x + rng.normal(), 50.0 + rng.normal(), 40.0)]
    for x in [60.0] * 12 + [64.0] * 12
  ]
  _cut_after(monkeypatch, 12)
  track = _track(script)
  for part in (slice(0, 12), slice(12, 24)):
    alone = _track(script[part])
    np.testing.assert_array_equal(track.landmarks[part], alone.landmarks)


def _smooth(points, width, shot=None):
  result = points.copy()
  present = np.isfinite(points).all((1, 2))
  if shot is None:
    shot = np.zeros(len(points), int)
  landmarks.smooth(result, present, shot, width)
  return result


def test_smoothing_keeps_parabolas_and_does_not_lag():
  time = np.arange(30)[:, None, None] * np.ones((1, 2, 3))
  points = (0.1 * time**2 - time).astype(np.float32)
  np.testing.assert_allclose(_smooth(points, 5), points, atol=1e-3)
  bump = np.exp(-(((time - 15) / 2) ** 2)).astype(np.float32)
  assert _smooth(bump, 5)[:, 0, 0].argmax() == 15
  # A closure about three frames long keeps 90 % of its depth.
  assert _smooth(bump, 5).max() > 0.9


def test_smoothing_reaches_neither_over_a_gap_nor_over_a_cut():
  points = np.random.default_rng(0).normal(size=(30, 2, 3)).astype(np.float32)
  points[9:11] = np.nan
  parts = np.split(points, [9, 11, 20])
  apart = np.concatenate(
    [x if np.isnan(x).any() else _smooth(x, 5) for x in parts]
  )
  shot = np.repeat([0, 1], [20, 10])
  np.testing.assert_array_equal(_smooth(points, 5, shot), apart)


@pytest.mark.parametrize("length", [10, 23, 24, 25, 26, 27, 40])
def test_smoothing_piece_by_piece_is_smoothing_at_once(monkeypatch, length):
  points = np.random.default_rng(0).normal(size=(length, 2, 3))
  points = points.astype(np.float32)
  whole = _smooth(points, 5)
  monkeypatch.setattr(landmarks, "_PIECE", 10)
  # Each filter run sums the same five terms; only their order may differ.
  np.testing.assert_allclose(_smooth(points, 5), whole, atol=1e-6)
