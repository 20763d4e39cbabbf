"""The square windows around a face and its mask, through a clip.

t frames of the fit, n of them before this section, l landmarks.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from pir_jax.face import fitting, masks, morphable
from pir_jax.types import Cameras

_CHUNK = 256  # Frames whose points are in memory at once.
_RIM = 0.1  # Of a window from an earlier section, that stays around the face.


def window(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  fps: float = 25.0,
  config: masks.Config | None = None,
  *,
  shot: Int[np.ndarray, "t"] | None = None,
  before: Float[np.ndarray, "n 3"] | None = None,
) -> Float[np.ndarray, "t 3"]:
  """Computes the square around the face: centre x, y and side, source pixels.

  One window for the clip where that fits, else one a shot, or one that moves
  slowly within the shot. It may cross the image's edge, which is then repeated.

  Args:
    model: the head.
    fit: of a clip, or a section of it.
    fps: frames a second.
    config: of the region and the window.
    shot: index of each frame's shot.
    before: windows of the first frames, from the section before: where they do
      not suffice any more, they turn slowly into those of this section.
  """
  config = config or masks.Config()
  return _squares(model, fit, fps, config, shot, True, before)


def mask_window(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  outer: Float[np.ndarray, "t 3"],
  fps: float = 25.0,
  config: masks.Config | None = None,
  *,
  shot: Int[np.ndarray, "t"] | None = None,
  before: Float[np.ndarray, "n 3"] | None = None,
) -> Float[np.ndarray, "t 3"]:
  """Computes the square around what is masked, inside a larger window.

  A network that is shown no more than that sees it larger. Around the whole
  face it is the window itself.

  Args:
    model: the head.
    fit: of a clip, or a section of it.
    outer: see `window`.
    fps: frames a second.
    config: of the region.
    shot: index of each frame's shot.
    before: squares of the first frames, in source pixels; see `window`.

  Returns:
    Centre x, y and side, as shares of the outer window from its upper left.
  """
  config = config or masks.Config()
  if config.region == "face":
    return np.tile(np.float32([0.5, 0.5, 1]), (len(outer), 1))
  height = masks.at_rest(model, fit)[:, 1]
  margin = config.eye_margin * np.ptp(model.landmark_mean[:, 1])
  lower = height <= height[masks.LOWER_LIDS].min() - margin
  square = _squares(model, fit, fps, config, shot, lower, before)
  side = np.minimum(square[:, 2:], outer[:, 2:])
  slack = (outer[:, 2:] - side) / 2
  off = np.clip(square[:, :2] - outer[:, :2], -slack, slack)
  shares = np.concatenate([off / outer[:, 2:] + 0.5, side / outer[:, 2:]], 1)
  return shares.astype(np.float32)


def _squares(
  model, fit, fps, config, shot, chosen, before
) -> Float[np.ndarray, "t 3"]:
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
  if before is not None and _suffices(before[-1], low, high, config):
    kept = np.tile(before[-1], (num_frames, 1))
    return _turned(before, kept, near, shot)
  whole = _still(low, high, config)
  if whole is not None:
    return _turned(before, np.tile(whole, (num_frames, 1)), near, shot)
  pieces = [
    _follow(low[a:b], high[a:b], fps, config)
    for a, b in zip(starts[:-1], starts[1:], strict=True)
  ]
  return _turned(before, np.concatenate(pieces), near, shot)


def _suffices(square, low, high, config) -> bool:
  """Returns whether a square holds all faces, and is not much too large."""
  half = square[2] / 2 * (1 - _RIM)
  inside = (low >= square[:2] - half) & (high <= square[:2] + half)
  largest = (1 + config.steady) * (high - low).max() / config.fill
  return bool(inside.all() and square[2] < largest)


def _turned(before, after, near, shot) -> Float[np.ndarray, "t 3"]:
  """Turns the squares of one section into those of the next, within a shot."""
  if before is None:
    return after
  # A face lies in both, and so in all between; the last ones of `before` did
  # not know of the faces that follow them.
  margin = len(before) // 2
  share = (np.arange(len(after)) - margin) / max(margin - near // 2, 1)
  share = np.clip(np.where(shot == shot[margin], share, 1), 0, 1)[:, None]
  held = np.concatenate([before, np.tile(before[-1:], (len(after), 1))])
  return (held[: len(after)] * (1 - share) + after * share).astype(np.float32)


def _bounds(model, fit, config, chosen):
  """Returns left and top, right and bottom of the dilated face, by frame."""
  low, high = np.empty((2, len(fit.pose), 2), np.float32)
  for start in range(0, len(fit.pose), _CHUNK):
    part = slice(start, start + _CHUNK)
    some = fit._replace(pose=fit.pose[part])
    points = masks.face_points(model, some, config, chosen)
    margin = config.face_margin * masks.heights(model, some)[:, None]
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
