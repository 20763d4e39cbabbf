"""Tracks faces from frame to frame, in tracklets that are surely one face.

A tracklet ends where that is no longer sure: at a cut, when the face is lost,
and when its appearance jumps. While two faces touch, and while one may be
occluded by the other, they may change places: their tracklets are kept short.
Identities are resolved later, in `identity_linking`.

h height, w width, l landmarks.
"""

import array
import collections
import dataclasses
import tempfile
from concurrent import futures

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.face import appearance, detector, eyelids, sight

SEARCH_SECONDS = 0.2  # Between detections of new faces, when none was lost.
LOST_SECONDS = 1.0  # After a loss, every frame is searched for this long.
_JUMP = 0.075  # Of the appearance, between neighbouring frames.
_TOUCH = 0.08  # Overlap of two faces' boxes from which they may change places.
_HIDDEN_SECONDS = 2.0  # A face lost while it was touched may be behind.
_SHORT_SECONDS = 0.2  # Between examples, and of a piece that touches another.
_IN_MEMORY = 2**25  # Bytes.
_MOST_PENDING = 8  # Frames whose lids wait: bounds memory.


class Rows:
  """Landmarks by index, in a temporary file once they are many."""

  def __init__(self):
    self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)
    self._size = detector.NUM_LANDMARKS * 3 * 4
    self._num = 0

  def append(self, points: Float[np.ndarray, "l 3"]) -> int:
    """Stores one face's landmarks; returns their index."""
    self._file.seek(self._num * self._size)
    self._file.write(np.ascontiguousarray(points, np.float32).tobytes())
    self._num += 1
    return self._num - 1

  def read(self, index: int) -> Float[np.ndarray, "l 3"]:
    self._file.seek(index * self._size)
    data = np.frombuffer(self._file.read(self._size), np.float32)
    return data.reshape(-1, 3)


@dataclasses.dataclass(kw_only=True, slots=True)
class Tracklet:
  """One face in neighbouring frames of one shot.

  Attributes:
    first: its first frame.
    shot: the index of the shot.
    rows: indices of its landmarks in `Rows`, frame by frame.
    presence: frame by frame.
    height: summed over frames, in pixels.
    gallery: its appearance.
    boxes: around its first and its last landmarks.
    sure: whether its position identifies it, at its beginning and at its end.
    touching: whether it touches another, so that its gallery may show both.
  """

  first: int
  shot: int
  rows: array.array
  presence: array.array
  height: float
  gallery: appearance.Gallery
  boxes: list[np.ndarray]
  sure: list[bool]
  touching: bool

  @property
  def last(self) -> int:
    return self.first + len(self.rows) - 1


@dataclasses.dataclass(kw_only=True, slots=True)
class _Observation:
  """A face in one frame.

  Attributes:
    points: of the mesh.
    presence: of the face.
    look: its description.
    before: the same face in the frame before.
    piece: its tracklet.
    touching: whether it touches another, or may occlude one.
    hides: until which frame it may occlude another.
  """

  points: np.ndarray
  presence: float
  look: np.ndarray
  before: "_Observation | None" = None
  piece: Tracklet | None = None
  touching: bool = False
  hides: int = -1

  @property
  def box(self) -> np.ndarray:
    return detector.box_of(self.points)


class Follower:
  """Tracks all faces through the frames of a video, one by one."""

  def __init__(
    self,
    tracker: detector.Tracker,
    eyes: eyelids.Eyes,
    fps: float,
    with_sight: bool = True,
  ):
    self.rows = Rows()
    self._finished: list[Tracklet] = []
    self._num_frames = 0
    self._shot = -1
    self._tracker = tracker
    self._eyes = eyes
    # Tracking needs neither the eyelids nor what hides the face: another
    # thread sees to them.
    self._pool = futures.ThreadPoolExecutor(1)
    self._pending: collections.deque[futures.Future] = collections.deque()
    self.sights: list[np.ndarray] = []  # As many as rows; or none.
    self._with_sight = with_sight
    self._num_rows = 0
    self._fps = fps
    self._current: list[_Observation] = []
    self._search_until = 0
    self._searched = 0

  def add(self, frame: UInt8[np.ndarray, "h w 3"], begins: bool) -> None:
    """Tracks every face into the next frame, and detects new ones.

    Args:
      frame: the next one.
      begins: whether a shot begins with it: then no face is tracked into it.
    """
    index = self._num_frames
    if begins:
      self._lose(self._current)
      self._current = []
      self._shot += 1
      self._search_until = index
    current = self._follow(frame)
    kept = {id(face.before) for face in current}
    lost = [old for old in self._current if id(old) not in kept]
    self._lose(lost)
    if lost:
      self._search_until = index + round(LOST_SECONDS * self._fps)
    due = index - self._searched >= SEARCH_SECONDS * self._fps
    if due or not current or index <= self._search_until:
      self._searched = index
      current += self._search(frame, [face.box for face in current])
    self._touch(current, [old for old in lost if old.touching])
    for face in current:
      self._continue(frame, face)
      face.before = None
    self._current = current
    self._num_frames += 1

  def tracklets(self) -> list[Tracklet]:
    """Returns all so far; those that go on grow further."""
    while self._pending:
      self._pending.popleft().result()
    return self._finished + [face.piece for face in self._current]

  def close(self) -> list[Tracklet]:
    """Ends all tracklets and returns them."""
    self._lose(self._current)
    self._current = []
    tracklets = self.tracklets()
    self._pool.shutdown()
    return tracklets

  def _follow(self, frame: np.ndarray) -> list[_Observation]:
    """Tracks the faces of the last frame into this one."""
    candidates = []
    for old in self._current:
      face = self._look(frame, detector.region_of_points(old.points))
      if face and detector.overlap(face.box, old.box) > 0.3:
        face.before, face.piece, face.hides = old, old.piece, old.hides
        candidates.append(face)

    # Of two at one position, keep the one whose appearance changed less, or
    # else the one tracked for longer.
    def doubt(face: _Observation) -> tuple[float, int]:
      change = appearance.distance(face.look, face.before.look)
      return round(change, 2), -len(face.piece.rows)

    current: list[_Observation] = []
    for face in sorted(candidates, key=doubt):
      if all(detector.overlap(face.box, other.box) < 0.4 for other in current):
        current.append(face)
    return current

  def _search(self, frame: np.ndarray, boxes: list) -> list[_Observation]:
    """Detects faces that are not yet tracked."""
    new = []
    for detection in self._tracker.detect(frame):
      if any(detector.overlap(detection[:4], box) > 0.2 for box in boxes):
        continue
      face = self._look(frame, detector.region_of_detection(detection))
      if face and all(detector.overlap(face.box, b) <= 0.3 for b in boxes):
        boxes = [*boxes, face.box]
        new.append(face)
    return new

  def _look(
    self, frame: np.ndarray, region: detector.Region
  ) -> _Observation | None:
    points, presence = self._tracker.refine(frame, region)
    if presence < self._tracker.min_presence:
      return None
    look = appearance.describe(frame, points)
    return _Observation(points=points, presence=presence, look=look)

  def _touch(
    self, current: list[_Observation], covered: list[_Observation]
  ) -> None:
    """Marks faces that touch others, or may occlude a lost one."""
    for k, one in enumerate(current):
      if any(detector.overlap(one.box, old.box) > _TOUCH for old in covered):
        one.hides = self._num_frames + round(_HIDDEN_SECONDS * self._fps)
      one.touching |= self._num_frames < one.hides
      for other in current[:k]:
        if detector.overlap(one.box, other.box) > _TOUCH:
          one.touching = other.touching = True
          if one.before is None or other.before is None:
            one.hides = other.hides = -1  # The occluded face is visible again.

  def _continue(self, frame: np.ndarray, face: _Observation) -> None:
    """Extends a face's tracklet, or begins a new one where unsure."""
    piece, before = face.piece, face.before
    short = max(round(_SHORT_SECONDS * self._fps), 1)
    sure = not face.touching
    if piece is not None:
      jumps = (
        appearance.distance(face.look, before.look) > _JUMP
        and appearance.upper_distance(face.look, before.look) > _JUMP
      )
      # The position is still sure where touching begins, and not afterwards.
      sure = not jumps and not before.touching
      long = face.touching and len(piece.rows) >= short
      if jumps or long or before.touching != face.touching:
        piece.sure[1] = sure
        self._finished.append(piece)
        piece = None
    if piece is None:
      piece = Tracklet(
        first=self._num_frames,
        shot=self._shot,
        rows=array.array("q"),
        presence=array.array("f"),
        height=0.0,
        gallery=appearance.Gallery(),
        boxes=[face.box, face.box],
        sure=[sure, True],
        touching=face.touching,
      )
    if len(piece.rows) % short == 0:
      piece.gallery.add(face.look)
    # The refined points are stored; tracking goes on from the mesh's own.
    piece.rows.append(self._keep(frame, face.points))
    piece.presence.append(face.presence)
    piece.height += float(np.ptp(face.points[:, 1]))
    piece.boxes[1] = face.box
    face.piece = piece

  def _keep(self, frame: np.ndarray, points: np.ndarray) -> int:
    """Stores a face with its eyelids refined; returns the index of its row."""

    def work() -> None:
      self.rows.append(self._eyes.refine(frame, points))
      if self._with_sight:
        self.sights.append(sight.measure(frame, points))

    self._pending.append(self._pool.submit(work))
    if len(self._pending) > _MOST_PENDING:
      self._pending.popleft().result()
    self._num_rows += 1
    return self._num_rows - 1

  def _lose(self, faces: list[_Observation]) -> None:
    for face in faces:
      face.piece.sure[1] = not face.touching
      self._finished.append(face.piece)
