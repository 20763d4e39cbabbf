"""Dense face landmarks over a video: detect, track, link, fill short gaps.

Frames are uint8 RGB; points and boxes are in pixels of the frame, as in
`detector`. Nothing is interpolated or smoothed across a cut. Memory grows by
about a hundred bytes a frame: large arrays lie in temporary files.

t frames, l landmarks, h height, w width, d sides of a look.
"""

import dataclasses
import mmap
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.face import (
  detector,
  eyelids,
  identity_linking,
  shots,
  sight,
  tracklets,
)
from pir_jax.types import InputError

_IN_MEMORY = 2**26  # Bytes of landmarks beyond which they lie in a file.
_NEAR = 0.05  # Overlap of a face's boxes on both sides of a gap.
_PIECE = 2048  # Frames processed at once.
_MOST_LINKED = 256  # Tracklets, of all before a section.
_ENOUGH = 1.0  # Seconds of somebody, to begin with.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Filling and smoothing of a track.

  Attributes:
    max_gap: seconds without the face that are interpolated; longer gaps stay.
    smoothing: seconds spanned by the zero-phase quadratic filter; short enough
      to keep a lip closure of two frames. 0 turns it off, and so does a video
      with fewer than five frames in this time.
  """

  max_gap: float = 0.4
  smoothing: float = 0.2


class Track(NamedTuple):
  """One face over a clip.

  Attributes:
    landmarks: NaN in frames without the face. Of a long video a memory map:
      take it piece by piece.
    presence: of the face, in [0, 1]; 0 where it was not detected.
    box: x0, y0, x1, y1 around the landmarks; NaN in frames without the face.
    interpolated: frames filled from their neighbours.
    num_faces: how many people the clip shows.
    shot: index of each frame's shot, from 0; it changes at cuts.
    look: of the person, see `resemblance`.
    sight: what the pictures show of the face.
  """

  landmarks: Float[np.ndarray, "t l 3"]
  presence: Float[np.ndarray, "t"]
  box: Float[np.ndarray, "t 4"]
  interpolated: Bool[np.ndarray, "t"]
  num_faces: int
  shot: Int[np.ndarray, "t"]
  look: Float[np.ndarray, "d"]
  sight: sight.Sight

  @property
  def present(self) -> Bool[np.ndarray, "t"]:
    """Frames with the face, detected or interpolated."""
    return np.isfinite(self.box[:, 0])


class Section(NamedTuple):
  """One face over a part of a clip, and over a margin on either side of it.

  Attributes:
    first: frame of the clip with which the track begins.
    inner: frames of the track that are not its margins.
    track: the same as of the whole clip, but for what nobody knows yet: who
      the largest is, and how many people are shown; and without `sight`.
  """

  first: int
  inner: slice
  track: Track


def track(
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  face: int | str | pathlib.Path | UInt8[np.ndarray, "_ _ 3"] | None = 0,
  expected: Float[np.ndarray, "d"] | None = None,
  refuse: bool = True,
  fps: float = 25.0,
  tracker: detector.Tracker | None = None,
  eyes: eyelids.Eyes | None = None,
  config: Config | None = None,
) -> Track:
  """Tracks one person through a clip, in a single pass over its frames.

  Args:
    frames: RGB, uint8, all of one size.
    face: index, counted from the largest (by height, summed over frames); or
      an image of the person, as a file's path or as pixels; or None for who
      looks most like the expected one.
    expected: look of the person who should be seen.
    refuse: anyone else.
    fps: frames a second; gaps and smoothing are in seconds.
    tracker: networks to reuse.
    eyes: network that refines the eyelids, to reuse.
    config: gaps and smoothing.

  Returns:
    The tracked face; see `Track`.

  Raises:
    InputError: no face at all, no face of that index, nobody similar to the
      image, no face in the image, or another person than expected.
  """
  config = config or Config()
  tracker = tracker or detector.Tracker()
  query = _query(face, tracker)
  follower = tracklets.Follower(tracker, eyes or eyelids.Eyes(), fps)
  begins = []
  for frame, first in shots.split(frames):
    follower.add(frame, first)
    begins.append(first)
  people = _people(follower.close(), fps, len(begins))
  person = identity_linking.choose(people, query, expected, refuse)
  shot = np.cumsum(begins, dtype=np.int32) - 1
  pieces = person.pieces
  return _finish(pieces, person.look, follower, shot, len(people), fps, config)


def sections(
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  length: int,
  margin: int,
  expected: Float[np.ndarray, "d"],
  fps: float = 25.0,
  tracker: detector.Tracker | None = None,
  eyes: eyelids.Eyes | None = None,
  config: Config | None = None,
) -> Iterator[Section]:
  """Tracks a known person, and yields parts while the clip goes on.

  The first part begins with the first frame and lasts until the person was
  seen in a second of it.

  Args:
    frames: see `track`.
    length: of a part, in frames; the first and the last may have another.
    margin: frames on either side of it, as many as there are.
    expected: look of the person.
    fps: see `track`, like all that follows.
    tracker: networks.
    eyes: network.
    config: of gaps and smoothing.

  Raises:
    InputError: there is no face at all, or only other people's.
  """
  config = config or Config()
  # Whoever is in a hurry does not ask what hides the face.
  follower = tracklets.Follower(
    tracker or detector.Tracker(), eyes or eyelids.Eyes(), fps, with_sight=False
  )
  begins: list[bool] = []
  start, num_faces, wanted = 0, 0, length
  look = np.zeros(0, np.float32)

  def section(stop: int, last: bool) -> Section | None:
    nonlocal start, num_faces, look
    low, high = max(0, start - margin), min(len(begins), stop + margin)
    seen = follower.tracklets()
    # All that were seen: who somebody is does not depend on one section.
    late = max(0, len(seen) - _MOST_LINKED)
    seen = [x for x in seen[:late] if x.last >= low] + seen[late:]
    pieces = []
    try:
      people = _people(seen, fps, len(begins))
      person = identity_linking.choose(people, None, expected)
      pieces, num_faces = person.pieces, max(num_faces, len(people))
    except InputError:
      if last and not len(look):
        raise
    inside = (min(x.last + 1, stop) - max(x.first, start) for x in pieces)
    if not (
      last or len(look) or sum(x for x in inside if x > 0) > _ENOUGH * fps
    ):
      return None  # Too little to begin with.
    look = look if len(look) else person.look
    shot = np.cumsum(begins, dtype=np.int32)[:high] - 1
    tracked = _finish(pieces, look, follower, shot, num_faces, fps, config, low)
    inner = slice(start - low, stop - low)
    start = stop
    return Section(low, inner, tracked)

  try:
    for frame, first in shots.split(frames):
      follower.add(frame, first)
      begins.append(first)
      stop = len(begins) - margin
      if stop - start == wanted:
        made = section(stop, last=False)
        # Seldom, while nobody was seen: all of it is linked again.
        wanted = 2 * wanted if made is None else length
        yield from [] if made is None else [made]
    if start < len(begins):
      yield section(len(begins), last=True)
  finally:
    follower.close()


def _people(
  pieces: list[tracklets.Tracklet], fps: float, num_frames: int
) -> list[identity_linking.Person]:
  people = identity_linking.link(pieces, fps)
  if not people:
    raise InputError(
      f"No face was detected in {num_frames} frames: use a video in which the"
      " face is upright, unhidden and at least a twentieth of the frame high."
    )
  return people


def _query(face, tracker: detector.Tracker):
  """Returns an index, or the description of a person."""
  if face is None or isinstance(face, int):
    return face
  if isinstance(face, np.ndarray):
    return identity_linking.describe(face, tracker, "The reference picture")
  return identity_linking.reference(str(face), tracker)


def _finish(
  pieces: list[tracklets.Tracklet],
  look: Float[np.ndarray, "d"],
  follower: tracklets.Follower,
  shot: Int[np.ndarray, "n"],
  num_faces: int,
  fps: float,
  config: Config,
  low: int = 0,
) -> Track:
  """Returns arrays over the clip: short gaps filled, then smoothed.

  They begin with frame `low`, and end with the last that has a shot.
  """
  high, shot = len(shot), shot[low:]
  num_frames = len(shot)
  points = _empty(num_frames)
  presence = np.zeros(num_frames, np.float32)
  seen = np.full((num_frames, len(sight.Sight._fields)), np.nan, np.float32)
  observed = np.zeros(num_frames, bool)
  # Adjacent tracklets without overlap are a jump of the face: a cut.
  unbroken = shot.copy()
  last, box = -1, np.zeros(4)
  for piece in pieces:
    first, stop = max(piece.first, low), min(piece.last + 1, high)
    part = slice(first - piece.first, max(stop, first) - piece.first)
    for index, row in enumerate(piece.rows[part], first - low):
      points[index] = follower.rows.read(row)
      if follower.sights:
        seen[index] = follower.sights[row]
      if index % _PIECE == 0:
        release(points)
    span = slice(first - low, max(stop, first) - low)
    presence[span], observed[span] = piece.presence[part], True
    if piece.first == last + 1 and detector.overlap(box, piece.boxes[0]) < 0.7:
      unbroken[max(piece.first - low, 0) :] += 1
    last, box = piece.last, piece.boxes[1]
  filled = fill_gaps(points, observed, shot, int(config.max_gap * fps + 1e-6))
  width = int(config.smoothing * fps + 1e-6)
  smooth(points, observed | filled, unbroken, width + 1 - width % 2)
  box = np.empty((num_frames, 4), np.float32)
  for start, stop in _pieces(0, num_frames):
    part = points[start:stop, :, :2]
    box[start:stop] = np.concatenate([part.min(1), part.max(1)], axis=1)
    release(points)
  return Track(
    points,
    presence,
    box,
    filled,
    num_faces,
    shot,
    look,
    sight.Sight(*seen.T),
  )


def _empty(num_frames: int) -> Float[np.ndarray, "t l 3"]:
  """Allocates landmarks filled with NaN, on disk where they are many."""
  shape = (num_frames, detector.NUM_LANDMARKS, 3)
  if 4 * np.prod(shape) <= _IN_MEMORY:
    return np.full(shape, np.nan, np.float32)
  with tempfile.TemporaryFile() as file:
    # The map keeps the file, which has no name any more.
    points = np.memmap(file, np.float32, "w+", shape=shape)
  for start, stop in _pieces(0, num_frames):
    points[start:stop] = np.nan
    release(points)
  return points


def release(points: np.ndarray) -> None:
  """Releases the pages of a memory map; they are read again when needed."""
  if isinstance(points, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
    points.flush()
    points._mmap.madvise(mmap.MADV_DONTNEED)


def _pieces(first: int, last: int) -> Iterator[tuple[int, int]]:
  for start in range(first, last, _PIECE):
    yield start, min(start + _PIECE, last)


def fill_gaps(
  points: Float[np.ndarray, "t l 3"],
  observed: Bool[np.ndarray, "t"],
  shot: Int[np.ndarray, "t"],
  max_frames: int,
) -> Bool[np.ndarray, "t"]:
  """Interpolates gaps of at most max_frames within a shot.

  Gaps after which the face is elsewhere stay: it did not move there evenly.

  Args:
    points: changed in place.
    observed: frames with points.
    shot: index of each frame's shot.
    max_frames: longer gaps stay.

  Returns:
    The frames that were filled.
  """
  filled = np.zeros(len(points), bool)
  index = np.flatnonzero(observed)
  before, after = index[:-1], index[1:]
  short = (after - before > 1) & (after - before <= max_frames + 1)
  short &= shot[before] == shot[after]
  for a, b in zip(before[short], after[short], strict=True):
    boxes = detector.box_of(points[a]), detector.box_of(points[b])
    if detector.overlap(*boxes) < _NEAR:
      continue
    weight = (np.arange(a + 1, b) - a)[:, None, None] / (b - a)
    points[a + 1 : b] = (1 - weight) * points[a] + weight * points[b]
    filled[a + 1 : b] = True
    release(points)
  return filled


def smooth(
  points: Float[np.ndarray, "t l 3"],
  present: Bool[np.ndarray, "t"],
  shot: Int[np.ndarray, "t"],
  width: int,
) -> None:
  """Applies a zero-phase Savitzky-Golay filter of order 2, in place.

  Filters each run of present frames of one shot separately. Unlike a mean it
  keeps the depth of a closure a few frames long. A width below 5 would fit
  three points with three unknowns: the points stay.
  """
  runs = np.where(present, shot, -1)
  edges = np.flatnonzero(np.diff(runs, prepend=-2, append=-2))
  if width < 5:
    return
  from scipy import signal  # Here: it takes as long to load as jax.

  half = width // 2
  for a, b in zip(edges[:-1], edges[1:], strict=True):
    if runs[a] < 0 or b - a < width:
      continue
    before = points[a:a].copy()  # The unfiltered frames before `start`.
    start = a
    while start < b:
      # The last piece is at least a width long.
      stop = b if b - start < _PIECE + width else start + _PIECE
      padded = points[start : min(stop + half, b)]
      padded = np.concatenate([before, padded])
      before = points[stop - half : stop].copy()
      result = signal.savgol_filter(padded, width, 2, axis=0)
      skip = len(padded) - (min(stop + half, b) - start)
      points[start:stop] = result[skip : skip + stop - start]
      release(points)
      start = stop
