"""Dense face landmarks over a video: find, follow, link, fill short gaps.

Frames are uint8 RGB; points and boxes are in pixels of the frame, as in
`detector`.

t frames, l landmarks.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import signal

from pir_jax.face import detector
from pir_jax.types import InputError

_LINK_SECONDS = 1.0  # A face this long out of sight is another face.
_MAX_TRACKS = 64  # More are mistakes; following them would only cost time.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How a track is filled and smoothed.

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
    landmarks: NaN in frames without the face.
    presence: of the face, in [0, 1]; 0 where it was not found.
    box: x0, y0, x1, y1 around the landmarks; NaN in frames without the face.
    interpolated: frames filled from their neighbours.
    num_faces: how many faces the clip has.
  """

  landmarks: Float[np.ndarray, "t l 3"]
  presence: Float[np.ndarray, "t"]
  box: Float[np.ndarray, "t 4"]
  interpolated: Bool[np.ndarray, "t"]
  num_faces: int


@dataclasses.dataclass(slots=True)
class _Face:
  """One face being followed: frame number -> points and presence."""

  points: dict[int, np.ndarray]
  presence: dict[int, float]

  @property
  def last(self) -> int:
    return max(self.points)


def track(
  frames: Iterable[np.ndarray],
  *,
  face: int = 0,
  fps: float = 25.0,
  tracker: detector.Tracker | None = None,
  config: Config | None = None,
) -> Track:
  """Follows one face through a clip, in a single pass over its frames.

  Args:
    frames: RGB, uint8, [h, w, 3], all of one size.
    face: which one, counted from the largest (by height, summed over frames).
    fps: frames a second; gaps and smoothing are in seconds.
    tracker: networks to reuse.
    config: gaps and smoothing.

  Returns:
    The face; see `Track`.

  Raises:
    InputError: no face at all, or no face of that number.
  """
  config = config or Config()
  tracker = tracker or detector.Tracker()
  faces: list[_Face] = []
  num_frames = 0
  for frame in frames:
    _follow(tracker, faces, frame, num_frames, fps)
    num_frames += 1
  if not faces:
    raise InputError(
      f"No face was found in {num_frames} frames: use a video in which the"
      " face is upright, unhidden and at least a twentieth of the frame high."
    )

  def height(face: _Face) -> float:
    return sum(float(np.ptp(p[:, 1])) for p in face.points.values())

  # A face seen for an instant is more often a mistake than a person.
  least = max(len(f.points) for f in faces) / 10
  faces = [f for f in faces if len(f.points) >= least]
  faces.sort(key=height, reverse=True)
  if not 0 <= face < len(faces):
    raise InputError(
      f"There is no face {face} in this video: choose one from 0 (the largest)"
      f" to {len(faces) - 1}."
    )
  return _finish(faces[face], num_frames, len(faces), fps, config)


def _follow(
  tracker: detector.Tracker,
  faces: list[_Face],
  frame: np.ndarray,
  index: int,
  fps: float,
) -> None:
  """Adds one frame to the faces seen so far, and new faces to the list."""
  boxes = []

  def add(face: _Face, points: np.ndarray, presence: float) -> None:
    face.points[index], face.presence[index] = points, presence
    boxes.append(detector.box_of(points))

  least = tracker.min_presence
  # The longest-followed first: when two faces merge, it keeps the place.
  for face in sorted(faces, key=lambda f: -len(f.points)):
    if face.last != index - 1:
      continue
    region = detector.region_of_points(face.points[index - 1])
    points, presence = tracker.refine(frame, region)
    near = (
      detector.overlap(
        detector.box_of(points), detector.box_of(face.points[index - 1])
      )
      > 0.3
    )
    free = all(
      detector.overlap(detector.box_of(points), box) < 0.4 for box in boxes
    )
    if presence >= least and near and free:
      add(face, points, presence)
  for detection in tracker.detect(frame):
    if any(detector.overlap(detection[:4], box) > 0.2 for box in boxes):
      continue
    points, presence = tracker.refine(
      frame, detector.region_of_detection(detection)
    )
    if presence < least or any(
      detector.overlap(detector.box_of(points), b) > 0.3 for b in boxes
    ):
      continue
    lost = [
      f
      for f in faces
      if 0 < index - f.last <= _LINK_SECONDS * fps
      and _same_place(
        detector.box_of(f.points[f.last]), detector.box_of(points)
      )
    ]
    if lost:
      add(max(lost, key=lambda f: f.last), points, presence)
    elif len(faces) < _MAX_TRACKS:
      faces.append(_Face({}, {}))
      add(faces[-1], points, presence)


def _finish(
  face: _Face, num_frames: int, num_faces: int, fps: float, config: Config
) -> Track:
  """Arrays over the clip: short gaps filled, then smoothed."""
  points = np.full((num_frames, detector.NUM_LANDMARKS, 3), np.nan, np.float32)
  presence = np.zeros(num_frames, np.float32)
  for index, value in face.points.items():
    points[index], presence[index] = value, face.presence[index]
  points, filled = fill_gaps(points, int(config.max_gap * fps + 1e-6))
  width = int(config.smoothing * fps + 1e-6)
  points = smooth(points, width + 1 - width % 2)
  low, high = points[..., :2].min(1), points[..., :2].max(1)
  box = np.concatenate([low, high], axis=1)
  return Track(points, presence, box, filled, num_faces)


def fill_gaps(
  points: Float[np.ndarray, "t l 3"], max_frames: int
) -> tuple[Float[np.ndarray, "t l 3"], Bool[np.ndarray, "t"]]:
  """Interpolates gaps of at most max_frames between two seen frames."""
  points = points.copy()
  filled = np.zeros(len(points), bool)
  seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
  for a, b in zip(seen[:-1], seen[1:], strict=True):
    if 1 < b - a <= max_frames + 1:
      weight = (np.arange(a + 1, b) - a)[:, None, None] / (b - a)
      points[a + 1 : b] = (1 - weight) * points[a] + weight * points[b]
      filled[a + 1 : b] = True
  return points, filled


def smooth(
  points: Float[np.ndarray, "t l 3"], width: int
) -> Float[np.ndarray, "t l 3"]:
  """Zero-phase Savitzky-Golay filter of order 2, on each run of seen frames.

  Unlike an average it keeps the depth of a closure a few frames long. A width
  below 5 would fit three points with three unknowns: nothing is done.
  """
  points = points.copy()
  seen = np.isfinite(points).all((1, 2))
  edges = np.flatnonzero(np.diff(np.pad(seen.astype(int), 1)))
  for a, b in zip(edges[::2], edges[1::2], strict=True):
    if width >= 5 and b - a >= width:
      points[a:b] = signal.savgol_filter(points[a:b], width, 2, axis=0)
  return points


def _same_place(a: np.ndarray, b: np.ndarray) -> bool:
  """Whether two boxes may be one face a moment apart."""
  size_a, size_b = (np.prod(c[2:] - c[:2]) ** 0.5 for c in (a, b))
  moved = np.linalg.norm((a[:2] + a[2:] - b[:2] - b[2:]) / 2)
  return bool(0.6 < size_a / size_b < 1.7 and moved < 0.6 * size_a)
