"""Where pieces of following end, with faces that are painted squares."""

import numpy as np

from pir_jax.face import detector, eyelids, tracklets

FPS = 25.0
RIGHT, LEFT = 33, 263
PATTERN = np.random.default_rng(0).uniform(-0.5, 0.5, (468, 3))
PATTERN[:4] = [[-0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0], [0.5, -0.5, 0]]
PATTERN[RIGHT], PATTERN[LEFT] = [-0.3, -0.2, 0], [0.3, -0.2, 0]
PATTERN[61], PATTERN[291] = [-0.2, 0.3, 0], [0.2, 0.3, 0]


class Squares(detector.Tracker):
  """Sees (x, y, side) squares; of several at one place the last, in front."""

  def __init__(self):
    self.min_presence = 0.5
    self.faces = []

  def detect(self, image):
    rows = []
    for x, y, side, _ in self.faces:
      half, eye = side / 2, 0.3 * side
      row = [x - half, y - half, x + half, y + half]
      rows.append([*row, x - eye, y, x + eye, y, 1])
    return np.array(rows, np.float32).reshape(-1, 9)

  def refine(self, image, region):
    best = None
    for x, y, side, _ in self.faces:
      away = np.hypot(x - region.x, y - region.y)
      if away < 0.5 * side and (best is None or away <= best[0]):
        best = away, x, y, side
    if best is None:
      return np.zeros((468, 3), np.float32), 0.0
    _, x, y, side = best
    return (PATTERN * side + [x, y, 0]).astype(np.float32), 0.9


class OpenEyes(eyelids.Eyes):
  def __init__(self):
    pass

  def refine(self, image, points):
    return points


def pieces(script, cuts=()):
  """Of a script: per frame, (x, y, side, colour of either cheek) of faces."""
  tracker = Squares()
  follower = tracklets.Follower(tracker, OpenEyes(), FPS)
  for k, faces in enumerate(script):
    frame = np.full((100, 300, 3), 128, np.uint8)
    for x, y, side, (left, right) in faces:
      rows = slice(int(y - side / 2), int(y + side / 2))
      frame[rows, int(x - side / 2) : int(x)] = left
      frame[rows, int(x) : int(x + side / 2)] = right
    tracker.faces = faces
    follower.add(frame, k == 0 or k in cuts)
  return sorted(follower.close(), key=lambda piece: (piece.first, piece.rows))


def spans(found):
  return [(piece.first, piece.last) for piece in found]


ONE, OTHER = (200, 60), (60, 200)


def test_a_cut_ends_a_piece_and_so_does_a_loss():
  here = [(60.0, 50.0, 40.0, ONE)]
  assert spans(pieces([here] * 9)) == [(0, 8)]
  found = pieces([here] * 9, cuts=[4])
  assert spans(found) == [(0, 3), (4, 8)]
  assert [piece.shot for piece in found] == [0, 1]
  assert spans(pieces([here] * 4 + [[]] * 2 + [here] * 3)) == [(0, 3), (6, 8)]


def test_another_face_at_the_same_place_is_another_piece():
  one, other = ([(60.0, 50.0, 40.0, colours)] for colours in (ONE, OTHER))
  found = pieces([one] * 5 + [other] * 5)
  assert spans(found) == [(0, 4), (5, 9)]
  # Its place tells nothing of who it is.
  assert not found[0].sure[1] and not found[1].sure[0]


def test_pieces_are_short_while_faces_touch():
  one, other = (80.0, 50.0, 40.0, ONE), (124.0, 50.0, 40.0, OTHER)
  beside = (114.0, 50.0, 40.0, OTHER)
  script = [[one, other]] * 5 + [[one, beside]] * 12 + [[one, other]] * 5
  found = [piece for piece in pieces(script) if piece.boxes[0][0] < 70]
  # A fifth of a second is five frames.
  assert spans(found) == [(0, 4), (5, 9), (10, 14), (15, 16), (17, 21)]
  assert [p.touching for p in found] == [False, True, True, True, False]
  # Entering is sure; what comes after is not.
  assert [p.sure[0] for p in found] == [True, True, False, False, False]


def test_a_new_face_is_found_within_a_fifth_of_a_second():
  one, other = (80.0, 50.0, 40.0, ONE), (200.0, 50.0, 40.0, OTHER)
  found = pieces([[one]] * 11 + [[one, other]] * 9)
  assert 11 <= found[1].first <= 11 + tracklets.SEARCH_SECONDS * FPS


def test_rows_are_the_same_in_memory_and_on_disk(monkeypatch):
  rng = np.random.default_rng(0)
  points = rng.normal(size=(5, 468, 3)).astype(np.float32)
  for limit in (2**30, 1):
    monkeypatch.setattr(tracklets, "_IN_MEMORY", limit)
    rows = tracklets.Rows()
    numbers = [rows.append(face) for face in points]
    for number in (3, 0, 4):
      np.testing.assert_array_equal(rows.read(numbers[number]), points[number])
    assert rows.append(points[0]) == 5
    np.testing.assert_array_equal(rows.read(5), points[0])


def test_a_face_that_may_hide_another_is_in_short_pieces():
  one, other = (80.0, 50.0, 40.0, ONE), (114.0, 50.0, 40.0, OTHER)
  found = pieces([[one, other]] * 4 + [[one]] * 70)
  found = [piece for piece in found if piece.boxes[0][0] < 70]
  touching = [piece.last for piece in found if piece.touching]
  assert all(len(piece.rows) <= 5 for piece in found if piece.touching)
  # For two seconds.
  assert touching[-1] == 4 + 50 - 1
