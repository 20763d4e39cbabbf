"""Masks of the face and the head, and the window around them.

The face mask is the region that is inpainted. It must not leak how far the
mouth is open, so it never follows the frame's expression: it covers the face at
rest and with the jaw at its widest. Nor does it follow the frame's own pose,
whose nods and small errors would show in its shape: it covers the face in every
pose of about a second.

t frames of the fit, k frames with a mask, l landmarks, v vertices, n points,
e edges of a hull, r pixels of the window's side.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, spatial

from pir_jax.face import fitting, morphable
from pir_jax.types import Cameras

REGIONS = ("face", "lower")
_LOWER_LIDS = [145, 374]  # Landmarks: the middle of each.
_CHUNK = 256  # Frames whose points are in memory at once.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of masks and window; our choices, the paper leaves them open.

  Attributes:
    region: of the mask: the whole "face", or its "lower" part up to about the
      lower eyelids.
    spread_seconds: a frame's mask covers the face as it lies in any frame
      within this time of it.
    face_margin: added all round the face, as a share of face height.
    head_margin: added all round the skull for hair, likewise.
    jaw_open: the widest opening, in units of the model's jawOpen.
    fill: the face mask's longer side as a share of the window's.
    steady: a window that would move or grow by less than this share of its
      side over the clip is fixed.
    window_seconds: standard deviation of the smoothing of a moving window.
  """

  region: str = "face"
  spread_seconds: float = 0.5
  face_margin: float = 0.06
  head_margin: float = 0.15
  jaw_open: float = 1.0
  fill: float = 0.85
  steady: float = 0.35
  window_seconds: float = 1.0


def neighbours(
  times: Float[np.ndarray, "t"],
  present: Bool[np.ndarray, "t"],
  frames: Int[np.ndarray, "k"],
  seconds: float,
  shot: Int[np.ndarray, "t"],
) -> list[Int[np.ndarray, "_"]]:
  """Lists, for each queried frame, the nearby frames of its shot with a face.

  Args:
    times: of all frames in seconds, increasing.
    present: frames with a face.
    frames: that are queried; each is among its own neighbours.
    seconds: largest distance in time.
    shot: index of each frame's shot.
  """
  # Times were rounded: a distance equal to the radius counts.
  radius = seconds + 1e-3
  first = np.searchsorted(times, times[frames] - radius)
  last = np.searchsorted(times, times[frames] + radius)
  result = []
  for frame, low, high in zip(frames, first, last, strict=True):
    near = np.arange(low, high)
    near = near[shot[near] == shot[frame]]
    result.append(near[present[near] | (near == frame)])
  return result


def face_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "k 3"],
  resolution: int,
  config: Config | None = None,
  *,
  near: Sequence[Int[np.ndarray, "_"]] | None = None,
  resampled: bool = False,
) -> Bool[np.ndarray, "k r r"]:
  """Rasterises the face at rest and with the jaw at its widest, dilated.

  Args:
    model: the head.
    fit: of a whole clip.
    window: one for each mask.
    resolution: of the masks.
    config: of the region and its margin.
    near: for each of the windows, the frames whose faces it joins (see
      `neighbours`); None takes each frame of the fit in its own window.
    resampled: also covers all that is mixed with it by bicubic resampling.

  Raises:
    ValueError: the region has no such name.
  """
  config = config or Config()
  if near is None:
    near = [np.array([frame]) for frame in range(len(fit.pose))]
  joined = np.unique(np.concatenate(near))
  fit = fit._replace(pose=fit.pose[joined])
  points = _face_points(model, fit, config, _in_region(model, fit, config))
  margin = config.face_margin * _heights(model, fit)
  near = [np.searchsorted(joined, frames) for frames in near]
  return _hulls(points, margin, window, resolution, near, resampled)


def head_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "t 3"],
  resolution: int,
  config: Config | None = None,
) -> Bool[np.ndarray, "t r r"]:
  """Rasterises the dilated hull of face and skull, for the hair; no neck."""
  config = config or Config()
  chin = model.landmark_mean[152, 1]
  skull = np.flatnonzero(np.asarray(model.mean)[:, 1] > chin)
  # Every twelfth of thousands of points suffices for the hull.
  skull = skull[::12]
  shape = model.mean[skull] + np.tensordot(
    fit.identity, model.identity_basis[:, skull], axes=1
  )
  points = np.concatenate(
    [_project(shape[None], fit), _face_points(model, fit, config)], axis=1
  )
  margin = config.head_margin * _heights(model, fit)
  return _hulls(points, margin, window, resolution)


def mouth_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "t 3"],
  resolution: int,
  config: Config | None = None,
) -> Bool[np.ndarray, "t r r"]:
  """Rasterises the lips at rest and with the jaw at its widest, dilated."""
  config = config or Config()
  lips = np.isin(np.arange(len(model.landmark_valid)), morphable.LIPS)
  points = _face_points(model, fit, config, lips)
  margin = config.face_margin * _heights(model, fit)
  return _hulls(points, margin, window, resolution)


def window(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  fps: float = 25.0,
  config: Config | None = None,
  *,
  shot: Int[np.ndarray, "t"] | None = None,
) -> Float[np.ndarray, "t 3"]:
  """Computes the square around the face: centre x, y and side, source pixels.

  One window for the clip where that fits, else one a shot, or one that moves
  slowly within the shot. It may cross the image's edge, which is then repeated.
  """
  config = config or Config()
  num_frames = len(fit.pose)
  if shot is None:
    shot = np.zeros(num_frames, int)
  low, high = _bounds(model, fit, config)
  starts = [0, *(np.flatnonzero(np.diff(shot)) + 1), num_frames]
  near = 2 * round(config.spread_seconds * fps) + 1
  for a, b in zip(starts[:-1], starts[1:], strict=True):
    low[a:b] = ndimage.minimum_filter1d(low[a:b], near, axis=0)
    high[a:b] = ndimage.maximum_filter1d(high[a:b], near, axis=0)
  whole = _still(low, high, config)
  if whole is not None:
    return np.tile(whole, (num_frames, 1))
  pieces = [
    _follow(low[a:b], high[a:b], fps, config)
    for a, b in zip(starts[:-1], starts[1:], strict=True)
  ]
  return np.concatenate(pieces)


def _bounds(model, fit, config):
  """Returns left and top, right and bottom of the dilated face, by frame."""
  low, high = np.empty((2, len(fit.pose), 2), np.float32)
  for start in range(0, len(fit.pose), _CHUNK):
    part = slice(start, start + _CHUNK)
    some = fit._replace(pose=fit.pose[part])
    points = _face_points(model, some, config)
    margin = config.face_margin * _heights(model, some)[:, None]
    low[part], high[part] = points.min(1) - margin, points.max(1) + margin
  return low, high


def _still(low, high, config) -> Float[np.ndarray, "3"] | None:
  """Returns one square for all frames' faces, unless it is much too large."""
  side = (high - low).max(1) / config.fill
  all_low, all_high = low.min(0), high.max(0)
  all_side = (all_high - all_low).max() / config.fill
  if all_side >= (1 + config.steady) * np.median(side):
    return None
  return np.append((all_low + all_high) / 2, all_side).astype(np.float32)


def _follow(low, high, fps, config) -> Float[np.ndarray, "t 3"]:
  """Computes the window over one shot, fixed or smoothly moving."""
  square = _still(low, high, config)
  if square is not None:
    return np.tile(square, (len(low), 1))
  sigma = config.window_seconds * fps
  near = 2 * round(sigma) + 1

  def smooth(values):
    return ndimage.gaussian_filter1d(values, sigma, axis=0, mode="nearest")

  centre = smooth((low + high) / 2)
  # Large enough for the mask about the smoothed centre, and smooth: the mean of
  # the local maxima, over the same width, cuts no mask.
  need = 2 * np.maximum(centre - low, high - centre).max(1) / config.fill
  wide = ndimage.maximum_filter1d(need, near, mode="nearest")
  side = ndimage.uniform_filter1d(wide, near, mode="nearest")
  return np.append(centre, side[:, None], axis=1).astype(np.float32)


def cameras_of(fit: fitting.Fit, window: Float[np.ndarray, "t 3"]) -> Cameras:
  """Returns cameras whose ray grid covers exactly the window."""
  side = window[:, 2]
  corner = window[:, :2] - side[:, None] / 2
  intrinsics = np.zeros((len(window), 3, 3), np.float32)
  intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = fit.focal / side
  intrinsics[:, :2, 2] = (fit.centre - corner) / side[:, None]
  intrinsics[:, 2, 2] = 1
  return Cameras(fit.pose, intrinsics)


def _face_points(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  config: Config,
  chosen: Bool[np.ndarray, "l"] | bool = True,
) -> Float[np.ndarray, "t n 2"]:
  """Projects landmarks at rest and with the jaw widest; source pixels."""
  rest = _rest(model, fit)
  jaw = config.jaw_open * morphable.jaw_open(model)
  wide = rest + np.tensordot(jaw, model.landmark_expression, axes=1)
  shapes = np.concatenate([rest, wide])
  valid = np.tile(model.landmark_valid & chosen, 2)
  return _project(shapes[valid][None], fit)


def _rest(
  model: morphable.FaceModel, fit: fitting.Fit
) -> Float[np.ndarray, "l 3"]:
  """Returns landmarks of the person at rest."""
  return (
    model.landmark_mean
    + fit.offset
    + np.tensordot(fit.identity, model.landmark_identity, axes=1)
  )


def _heights(
  model: morphable.FaceModel, fit: fitting.Fit
) -> Float[np.ndarray, "t"]:
  """Computes the face's height at each frame's distance, in pixels."""
  depth = np.einsum("tc,tc->t", -fit.pose[:, :3, 3], fit.pose[:, :3, 2])
  return fit.focal / depth * np.ptp(model.landmark_mean[:, 1])


def _project(
  points: Float[np.ndarray, "#t n 3"], fit: fitting.Fit
) -> Float[np.ndarray, "t n 2"]:
  """Projects head-frame points to source pixels."""
  local = (points - fit.pose[:, None, :3, 3]) @ fit.pose[:, :3, :3]
  return (fit.focal * local[..., :2] / local[..., 2:] + fit.centre).astype(
    np.float32
  )


def _in_region(
  model: morphable.FaceModel, fit: fitting.Fit, config: Config
) -> Bool[np.ndarray, "l"]:
  """Selects the landmarks whose dilated hull is the region."""
  if config.region not in REGIONS:
    raise ValueError(
      f"region={config.region} is not a region of the face: choose one of "
      f"{', '.join(REGIONS)}"
    )
  height = _rest(model, fit)[:, 1]
  if config.region == "face":
    return np.ones(len(height), bool)
  # Up to the lids with the margin added, so that the eyes stay unchanged.
  margin = config.face_margin * np.ptp(model.landmark_mean[:, 1])
  return height <= height[_LOWER_LIDS].min() - margin


def _hulls(
  points: Float[np.ndarray, "t n 2"],
  margin: Float[np.ndarray, "t"],
  window: Float[np.ndarray, "k 3"],
  resolution: int,
  near: Sequence[Int[np.ndarray, "_"]] | None = None,
  resampled: bool = False,
) -> Bool[np.ndarray, "k r r"]:
  """Rasterises convex hulls, dilated by a margin, in the windows.

  Args:
    points: one set for each hull.
    margin: in the same pixels.
    window: one for each mask.
    resolution: of the masks.
    near: the hulls that each mask joins; None takes each its own.
    resampled: they also cover what they enter in a resampled window.
  """
  if near is None:
    near = [np.array([frame]) for frame in range(len(points))]
  hulls = [_grown(*hull) for hull in zip(points, margin, strict=True)]
  masks = np.zeros((len(window), resolution, resolution), bool)
  spans, current = {}, None
  for mask, square, joined in zip(masks, window, near, strict=True):
    if current is None or (square != current).any():
      # Windows are mostly fixed, and neighbours share their hulls.
      spans, current = {}, square
      support = _support(float(square[2]) / resolution) if resampled else 0.0
    for hull in joined:
      if hull not in spans:
        spans[hull] = _spans(hulls[hull], square, resolution, support)
    _join(mask, np.stack([spans[hull] for hull in joined]))
  return masks


def _grown(
  points: Float[np.ndarray, "n 2"], radius: float | np.floating
) -> Float[np.ndarray, "e 3"]:
  """Dilates a convex hull by a disc: the hull of discs at its corners.

  Returns:
    Lines (a, b, c); inside, a x + b y + c <= 0.
  """
  angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  disc = np.stack([np.cos(angles), np.sin(angles)], -1)
  hull = points[spatial.ConvexHull(points).vertices]
  grown = (hull[:, None] + radius * disc).reshape(-1, 2)
  return spatial.ConvexHull(grown).equations


def _support(pixel: float) -> float:
  """Returns the radius of a source pixel in a bicubic window, source pixels."""
  # Two pixels of the coarser grid along both axes; one of either for rounding.
  return 2**0.5 * (2 * max(pixel, 1.0) + pixel + 1.0)


def _spans(
  lines: Float[np.ndarray, "e 3"],
  square: Float[np.ndarray, "3"],
  resolution: int,
  support: float = 0.0,
) -> Int[np.ndarray, "2 r"]:
  """Computes each row's interval of pixels whose centres lie near a hull.

  Returns:
    Start and stop of each row; equal where it is empty.
  """
  centres = (np.arange(resolution) + 0.5) / resolution - 0.5
  x, y, offset = lines.T
  offset = offset - support  # The lines' normals have length 1.
  down = square[1] + centres * square[2]
  # Each edge allows x * column + y * row + offset <= 0: per row, an interval.
  limit = -(y * down[:, None] + offset)
  with np.errstate(divide="ignore", invalid="ignore"):
    bound = limit / x
  last = np.where(x > 1e-9, bound, np.inf).min(1)
  first = np.where(x < -1e-9, bound, -np.inf).max(1)
  empty = ((np.abs(x) <= 1e-9) & (limit < 0)).any(1) | (first > last)
  across = square[0] + centres * square[2]
  start = np.searchsorted(across, first, side="left")
  stop = np.searchsorted(across, last, side="right")
  return np.stack([start, np.where(empty, start, np.maximum(start, stop))])


def _join(
  mask: Bool[np.ndarray, "r r"], spans: Int[np.ndarray, "n 2 r"]
) -> None:
  """Fills the union of intervals in every row, in place."""
  resolution = len(mask)
  rows = np.arange(resolution)
  steps = np.zeros((resolution, resolution + 1), np.int32)
  for start, stop in spans:
    np.add.at(steps, (rows, start), 1)
    np.add.at(steps, (rows, stop), -1)
  mask |= steps.cumsum(1)[:, :-1] > 0
