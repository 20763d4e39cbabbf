"""Masks of the face and the head, and the window around them.

The face mask is the region that is inpainted. It must not leak how far the
mouth is open, so it never follows the frame's expression: it covers the face at
rest and with the jaw at its widest. Nor does it follow the frame's own pose,
whose nods and small errors would show in its shape: it covers the face in every
pose of about a second. The lower face is what of that lies below the eyes in
every such pose, so that no eye is touched. The lips are always in it, as they
lie in the frame's own pose: it shows where the head nods very quickly.

t frames of the fit, k frames with a mask, l landmarks, v vertices, n points,
r pixels of the window's side.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from pir_jax.face import fitting, hulls, morphable
from pir_jax.types import Cameras

REGIONS = ("face", "lower")
_LOWER_LIDS = [145, 374]  # Landmarks: the middle of each.
_CHUNK = 256  # Frames whose points are in memory at once.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of masks and window; our choices, the paper leaves them open.

  Attributes:
    region: of the mask: the whole "face", or its "lower" part, which leaves
      eyes and brows as they are.
    eye_margin: from the lower lids to the upper border of the lower part, as a
      share of face height: the band in which the result is blended into the
      frame lies between.
    spread_seconds: a frame's mask covers the face as it lies in any frame
      within this time of it, and stays below the eyes of all these.
    face_margin: added all round the face, as a share of face height.
    head_margin: added all round the skull for hair, likewise.
    jaw_open: the widest opening, in units of the model's jawOpen.
    fill: the face mask's longer side as a share of the window's.
    steady: a window that would move or grow by less than this share of its
      side over the clip is fixed.
    window_seconds: standard deviation of the smoothing of a moving window.
  """

  region: str = "lower"
  eye_margin: float = 0.08
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
  frames: Int[np.ndarray, "k"] | None = None,
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
    frames: of the fit, in whose windows the masks are; None takes all.
    near: for each of the windows, the frames whose faces it joins (see
      `neighbours`); None takes each frame of the fit in its own window.
    resampled: also covers all that is mixed with it by bicubic resampling.

  Raises:
    ValueError: the region has no such name.
  """
  config = config or Config()
  if config.region not in REGIONS:
    raise ValueError(
      f"region={config.region} is not a region of the face: choose one of "
      f"{', '.join(REGIONS)}"
    )
  frames = np.arange(len(fit.pose)) if frames is None else frames
  near = near or [np.array([frame]) for frame in frames]
  joined = np.unique(np.concatenate(near))
  some = fit._replace(pose=fit.pose[joined])
  points = _face_points(model, some, config)
  margin = config.face_margin * _heights(model, some)
  near = [np.searchsorted(joined, around) for around in near]
  mask = hulls.rasterise(points, margin, window, resolution, near, resampled)
  if config.region == "lower":
    eyes = _below_eyes(model, some, config)
    mask &= hulls.intersect(eyes, window, resolution, near)
    # A quick nod brings the eyes of one frame to the mouth of another.
    own = fit._replace(pose=fit.pose[frames])
    mask |= mouth_mask(
      model, own, window, resolution, config, resampled=resampled
    )
  return mask


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
  return hulls.rasterise(points, margin, window, resolution)


def mouth_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "t 3"],
  resolution: int,
  config: Config | None = None,
  *,
  resampled: bool = False,
) -> Bool[np.ndarray, "t r r"]:
  """Rasterises the lips at rest and with the jaw at its widest, dilated."""
  config = config or Config()
  lips = np.isin(np.arange(len(model.landmark_valid)), morphable.LIPS)
  points = _face_points(model, fit, config, lips)
  margin = config.face_margin * _heights(model, fit)
  return hulls.rasterise(
    points, margin, window, resolution, resampled=resampled
  )


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
  return _squares(model, fit, fps, config, shot, True)


def mask_window(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  outer: Float[np.ndarray, "t 3"],
  fps: float = 25.0,
  config: Config | None = None,
  *,
  shot: Int[np.ndarray, "t"] | None = None,
) -> Float[np.ndarray, "t 3"]:
  """Computes the square around what is masked, inside a larger window.

  A network that is shown no more than that sees it larger. Around the whole
  face it is the window itself.

  Args:
    model: the head.
    fit: of a whole clip.
    outer: see `window`.
    fps: frames a second.
    config: of the region.
    shot: index of each frame's shot.

  Returns:
    Centre x, y and side, as shares of the outer window from its upper left.
  """
  config = config or Config()
  if config.region == "face":
    return np.tile(np.float32([0.5, 0.5, 1]), (len(outer), 1))
  height = _rest(model, fit)[:, 1]
  margin = config.eye_margin * np.ptp(model.landmark_mean[:, 1])
  lower = height <= height[_LOWER_LIDS].min() - margin
  square = _squares(model, fit, fps, config, shot, lower)
  side = np.minimum(square[:, 2:], outer[:, 2:])
  slack = (outer[:, 2:] - side) / 2
  off = np.clip(square[:, :2] - outer[:, :2], -slack, slack)
  shares = np.concatenate([off / outer[:, 2:] + 0.5, side / outer[:, 2:]], 1)
  return shares.astype(np.float32)


def _squares(model, fit, fps, config, shot, chosen) -> Float[np.ndarray, "t 3"]:
  """Computes squares around some of the face's points."""
  num_frames = len(fit.pose)
  if shot is None:
    shot = np.zeros(num_frames, int)
  low, high = _bounds(model, fit, config, chosen)
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


def _bounds(model, fit, config, chosen):
  """Returns left and top, right and bottom of the dilated face, by frame."""
  low, high = np.empty((2, len(fit.pose), 2), np.float32)
  for start in range(0, len(fit.pose), _CHUNK):
    part = slice(start, start + _CHUNK)
    some = fit._replace(pose=fit.pose[part])
    points = _face_points(model, some, config, chosen)
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


def _below_eyes(
  model: morphable.FaceModel, fit: fitting.Fit, config: Config
) -> Float[np.ndarray, "t 3"]:
  """Computes (a, b, c) of lines under the eyes: below, a x + b y + c <= 0."""
  lids = _rest(model, fit)[_LOWER_LIDS]
  middle = lids.mean(0)
  chin = middle - np.array([0, np.ptp(model.landmark_mean[:, 1]), 0])
  points = _project(np.stack([*lids, middle, chin])[None], fit)
  down = points[:, 3] - points[:, 2]
  down /= np.linalg.norm(down, axis=-1, keepdims=True)
  border = np.einsum("tnc,tc->tn", points[:, :2], down).max(1)
  border += config.eye_margin * _heights(model, fit)
  return np.append(-down, border[:, None], axis=1)


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
