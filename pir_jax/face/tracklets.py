"""Following faces from frame to frame, in pieces that are surely one face.

A piece ends where that is no longer sure: at a cut, when the face is lost,
and when its appearance leaps. While two faces touch, and while one may be
hidden behind the other, they may change places: their pieces are kept short.
Who is who is decided later, in `people`.

h height, w width, l landmarks.
"""

import array
import collections
import dataclasses
import tempfile
from concurrent import futures

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.face import appearance, detector, eyelids

SEARCH_SECONDS = 0.2  # Between searches for new faces, when none was lost.
LOST_SECONDS = 1.0  # A lost face is searched in every frame for this long.
_LEAP = 0.075  # Of the appearance, between neighbouring frames.
_TOUCH = 0.08  # Overlap of two faces' boxes from which they may change places.
_HIDDEN_SECONDS = 2.0  # A face lost while it was touched may be behind.
_SHORT_SECONDS = 0.2  # Between examples, and of a piece that touches another.
_IN_MEMORY = 2**25  # Bytes.
_MOST_PENDING = 8  # Frames whose lids wait: bounds memory.


class Rows:
  """Landmarks by number, in a temporary file once they are many."""

  def __init__(self):
    self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)
    self._size = detector.NUM_LANDMARKS * 3 * 4
    self._num = 0

  def append(self, points: Float[np.ndarray, "l 3"]) -> int:
    """Keeps one face's landmarks; returns their number."""
    self._file.seek(self._num * self._size)
    self._file.write(np.ascontiguousarray(points, np.float32).tobytes())
    self._num += 1
    return self._num - 1

  def read(self, number: int) -> Float[np.ndarray, "l 3"]:
    self._file.seek(number * self._size)
    data = np.frombuffer(self._file.read(self._size), np.float32)
    return data.reshape(-1, 3)


@dataclasses.dataclass(kw_only=True, slots=True)
class Tracklet:
  """One face in neighbouring frames of one shot.

  Attributes:
    first: its first frame.
    shot: the number of the shot.
    rows: numbers of its landmarks in `Rows`, frame by frame.
    presence: frame by frame.
    height: summed over frames, in pixels.
    gallery: what it looks like.
    boxes: around its first and its last landmarks.
    sure: whether its place tells who it is, at its beginning and at its end.
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
class _Sight:
  """A face in one frame.

  Attributes:
    points: of the mesh.
    presence: of the face.
    look: its description.
    before: the same face in the frame before.
    piece: it is part of.
    touching: whether it touches another, or another may be behind it.
    hides: until which frame another may be behind it.
  """

  points: np.ndarray
  presence: float
  look: np.ndarray
  before: "_Sight | None" = None
  piece: Tracklet | None = None
  touching: bool = False
  hides: int = -1

  @property
  def box(self) -> np.ndarray:
    return detector.box_of(self.points)


class Follower:
  """Takes the frames of a video one by one and keeps the pieces."""

  def __init__(self, tracker: detector.Tracker, eyes: eyelids.Eyes, fps: float):
    self.rows = Rows()
    self._finished: list[Tracklet] = []
    self._num_frames = 0
    self._shot = -1
    self._tracker = tracker
    self._eyes = eyes
    # The lids do not tell where a face is: another thread may look at them.
    self._pool = futures.ThreadPoolExecutor(1)
    self._pending: collections.deque[futures.Future] = collections.deque()
    self._num_rows = 0
    self._fps = fps
    self._seen: list[_Sight] = []
    self._search_until = 0
    self._searched = 0

  def add(self, frame: UInt8[np.ndarray, "h w 3"], begins: bool) -> None:
    """Follows every face into the next frame, and looks for new ones.

    Args:
      frame: the next one.
      begins: whether a shot begins with it: then nothing is followed into it.
    """
    index = self._num_frames
    if begins:
      self._lose(self._seen)
      self._seen = []
      self._shot += 1
      self._search_until = index
    seen = self._follow(frame)
    kept = {id(sight.before) for sight in seen}
    lost = [old for old in self._seen if id(old) not in kept]
    self._lose(lost)
    if lost:
      self._search_until = index + round(LOST_SECONDS * self._fps)
    due = index - self._searched >= SEARCH_SECONDS * self._fps
    if due or not seen or index <= self._search_until:
      self._searched = index
      seen += self._search(frame, [sight.box for sight in seen])
    self._touch(seen, [old for old in lost if old.touching])
    for sight in seen:
      self._continue(frame, sight)
      sight.before = None
    self._seen = seen
    self._num_frames += 1

  def close(self) -> list[Tracklet]:
    """Ends all pieces and returns them."""
    self._lose(self._seen)
    self._seen = []
    while self._pending:
      self._pending.popleft().result()
    self._pool.shutdown()
    return self._finished

  def _follow(self, frame: np.ndarray) -> list[_Sight]:
    """The faces of the last frame that are in this one too."""
    found = []
    for old in self._seen:
      sight = self._look(frame, detector.region_of_points(old.points))
      if sight and detector.overlap(sight.box, old.box) > 0.3:
        sight.before, sight.piece, sight.hides = old, old.piece, old.hides
        found.append(sight)

    # Two that are now at one place: it is the one that still looks the same,
    # or else the one followed for longer.
    def doubt(sight: _Sight) -> tuple[float, int]:
      change = appearance.distance(sight.look, sight.before.look)
      return round(change, 2), -len(sight.piece.rows)

    seen: list[_Sight] = []
    for sight in sorted(found, key=doubt):
      if all(detector.overlap(sight.box, other.box) < 0.4 for other in seen):
        seen.append(sight)
    return seen

  def _search(self, frame: np.ndarray, boxes: list) -> list[_Sight]:
    """Faces that nobody follows."""
    new = []
    for detection in self._tracker.detect(frame):
      if any(detector.overlap(detection[:4], box) > 0.2 for box in boxes):
        continue
      sight = self._look(frame, detector.region_of_detection(detection))
      if sight and all(detector.overlap(sight.box, b) <= 0.3 for b in boxes):
        boxes = [*boxes, sight.box]
        new.append(sight)
    return new

  def _look(self, frame: np.ndarray, region: detector.Region) -> _Sight | None:
    points, presence = self._tracker.refine(frame, region)
    if presence < self._tracker.min_presence:
      return None
    look = appearance.describe(frame, points)
    return _Sight(points=points, presence=presence, look=look)

  def _touch(self, seen: list[_Sight], covered: list[_Sight]) -> None:
    """Finds out which faces touch, or hide one that was lost."""
    for k, one in enumerate(seen):
      if any(detector.overlap(one.box, old.box) > _TOUCH for old in covered):
        one.hides = self._num_frames + round(_HIDDEN_SECONDS * self._fps)
      one.touching |= self._num_frames < one.hides
      for other in seen[:k]:
        if detector.overlap(one.box, other.box) > _TOUCH:
          one.touching = other.touching = True
          if one.before is None or other.before is None:
            one.hides = other.hides = -1  # What was hidden is seen again.

  def _continue(self, frame: np.ndarray, sight: _Sight) -> None:
    """Adds a sight to its piece, or to a new one where that is not sure."""
    piece, before = sight.piece, sight.before
    short = max(round(_SHORT_SECONDS * self._fps), 1)
    sure = not sight.touching
    if piece is not None:
      leaps = appearance.distance(sight.look, before.look) > _LEAP
      # Touching begins where all is well; afterwards nothing is sure.
      sure = not leaps and not before.touching
      long = sight.touching and len(piece.rows) >= short
      if leaps or long or before.touching != sight.touching:
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
        boxes=[sight.box, sight.box],
        sure=[sure, True],
        touching=sight.touching,
      )
    if len(piece.rows) % short == 0:
      piece.gallery.add(sight.look)
    # Only what is kept: the mesh's own points find the face again.
    piece.rows.append(self._keep(frame, sight.points))
    piece.presence.append(sight.presence)
    piece.height += float(np.ptp(sight.points[:, 1]))
    piece.boxes[1] = sight.box
    sight.piece = piece

  def _keep(self, frame: np.ndarray, points: np.ndarray) -> int:
    """Stores a face with its lids refined; returns the number of its row."""

    def work() -> None:
      self.rows.append(self._eyes.refine(frame, points))

    self._pending.append(self._pool.submit(work))
    if len(self._pending) > _MOST_PENDING:
      self._pending.popleft().result()
    self._num_rows += 1
    return self._num_rows - 1

  def _lose(self, sights: list[_Sight]) -> None:
    for sight in sights:
      sight.piece.sure[1] = not sight.touching
      self._finished.append(sight.piece)
