"""Where in the picture the face and the head are, and the window around them.

The face mask is what the inpainting network must paint. It must not tell how
far the mouth is open, so it never follows the frame's expression: it covers
the face at rest and with the jaw at its widest, in that frame's pose.

t frames, l landmarks, v vertices, n points, r pixels of the window's side.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, spatial

from pir_jax.face import fitting, morphable
from pir_jax.types import Cameras

_JAW_OPEN = morphable.EXPRESSION_NAMES.index("jawOpen")


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of masks and window; our choices, the paper leaves them open.

  Attributes:
    face_margin: added all round the face, as a share of face height.
    head_margin: added all round the skull for hair, likewise.
    jaw_open: the widest opening, in units of the model's jawOpen.
    fill: the face mask's longer side as a share of the window's.
    steady: a window that would move or grow by less than this share of its
      side over the clip stands still.
    window_seconds: standard deviation of the smoothing of a moving window.
  """

  face_margin: float = 0.06
  head_margin: float = 0.15
  jaw_open: float = 1.0
  fill: float = 0.85
  steady: float = 0.35
  window_seconds: float = 1.0


def face_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "t 3"],
  resolution: int,
  config: Config | None = None,
) -> Bool[np.ndarray, "t r r"]:
  """The face at rest and at its widest, dilated, as pixels of the window."""
  config = config or Config()
  points = _face_points(model, fit, config)
  margin = config.face_margin * _heights(model, fit)
  return _hulls(points, margin, window, resolution)


def head_mask(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  window: Float[np.ndarray, "t 3"],
  resolution: int,
  config: Config | None = None,
) -> Bool[np.ndarray, "t r r"]:
  """The head with its hair: hull of face and skull, dilated; no neck."""
  config = config or Config()
  chin = model.landmark_mean[152, 1]
  skull = np.flatnonzero(np.asarray(model.mean)[:, 1] > chin)
  # Every twelfth point of a skull of thousands gives the same hull.
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
  """The lips at rest and at their widest, dilated."""
  config = config or Config()
  lips = np.isin(np.arange(len(model.landmark_valid)), morphable.LIPS)
  points = _face_points(model, fit, config, lips)
  margin = config.face_margin * _heights(model, fit)
  return _hulls(points, margin, window, resolution)


def feather(
  mask: Bool[np.ndarray, "t r r"], share: float = 0.06
) -> Float[np.ndarray, "t r r"]:
  """Opacity of what is painted: 0 outside the mask, 1 well inside.

  It rises from the mask's edge inwards over `share` of the side, so nothing
  outside the mask is ever touched.
  """
  width = share * mask.shape[-1]
  # A ring of zeros: a mask that meets the window's edge fades there too.
  ringed = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
  inside = np.stack([ndimage.distance_transform_edt(m) for m in ringed])
  inside = inside[:, 1:-1, 1:-1]
  # The outermost pixels stay at 0: interpolation then ends inside the mask.
  ramp = np.clip((inside - 1) / width, 0, 1)
  # Smoothstep: no crease where the ramp begins and ends.
  return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def window(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  fps: float = 25.0,
  config: Config | None = None,
) -> Float[np.ndarray, "t 3"]:
  """The square around the face: centre x, centre y, side; source pixels.

  One window for the clip where that fits, else one that follows slowly. It may
  reach over the picture's edge, which is then repeated.
  """
  config = config or Config()
  points = _face_points(model, fit, config)
  margin = config.face_margin * _heights(model, fit)[:, None]
  low, high = points.min(1) - margin, points.max(1) + margin
  side = (high - low).max(1) / config.fill
  # The square that holds the mask of every frame.
  all_low, all_high = low.min(0), high.max(0)
  all_side = (all_high - all_low).max() / config.fill
  if all_side < (1 + config.steady) * np.median(side):
    square = np.append((all_low + all_high) / 2, all_side)
    return np.tile(square, (len(side), 1)).astype(np.float32)
  deviation = config.window_seconds * fps
  near = 2 * round(deviation) + 1

  def smooth(values):
    return ndimage.gaussian_filter1d(values, deviation, axis=0, mode="nearest")

  centre = smooth((low + high) / 2)
  # As large as the mask needs about the smoothed centre, and smooth again: the
  # largest side near a frame, averaged over less than that, cuts no mask.
  need = 2 * np.maximum(centre - low, high - centre).max(1) / config.fill
  wide = ndimage.maximum_filter1d(need, near, mode="nearest")
  side = ndimage.uniform_filter1d(wide, near, mode="nearest")
  return np.append(centre, side[:, None], axis=1).astype(np.float32)


def cameras_of(fit: fitting.Fit, window: Float[np.ndarray, "t 3"]) -> Cameras:
  """Cameras whose ray grid covers exactly the window."""
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
  """Landmarks at rest and with the jaw at its widest; source pixels."""
  rest = (
    model.landmark_mean
    + fit.offset
    + np.tensordot(fit.identity, model.landmark_identity, axes=1)
  )
  wide = rest + config.jaw_open * model.landmark_expression[_JAW_OPEN]
  shapes = np.concatenate([rest, wide])
  valid = np.tile(model.landmark_valid & chosen, 2)
  return _project(shapes[valid][None], fit)


def _heights(
  model: morphable.FaceModel, fit: fitting.Fit
) -> Float[np.ndarray, "t"]:
  """Height of the face at each frame's distance, in pixels."""
  depth = np.einsum("tc,tc->t", -fit.pose[:, :3, 3], fit.pose[:, :3, 2])
  return fit.focal / depth * np.ptp(model.landmark_mean[:, 1])


def _project(
  points: Float[np.ndarray, "#t n 3"], fit: fitting.Fit
) -> Float[np.ndarray, "t n 2"]:
  """Head-frame points to source pixels."""
  local = (points - fit.pose[:, None, :3, 3]) @ fit.pose[:, :3, :3]
  return (fit.focal * local[..., :2] / local[..., 2:] + fit.centre).astype(
    np.float32
  )


def _hulls(
  points: Float[np.ndarray, "t n 2"],
  margin: Float[np.ndarray, "t"],
  window: Float[np.ndarray, "t 3"],
  resolution: int,
) -> Bool[np.ndarray, "t r r"]:
  """Convex hulls grown by a margin, drawn on the window's pixels."""
  # The hull of discs about the points is the hull grown by their radius.
  angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  disc = np.stack([np.cos(angles), np.sin(angles)], -1)
  masks = np.zeros((len(points), resolution, resolution), bool)
  for mask, frame, radius, square in zip(
    masks, points, margin, window, strict=True
  ):
    hull = frame[spatial.ConvexHull(frame).vertices]
    grown = (hull[:, None] + radius * disc).reshape(-1, 2)
    corner = square[:2] - square[2] / 2
    mask |= _fill((grown - corner) / square[2] * resolution, resolution)
  return masks


def _fill(
  points: Float[np.ndarray, "n 2"], resolution: int
) -> Bool[np.ndarray, "r r"]:
  """Pixels whose centres lie in the convex hull of the points."""
  x, y, offset = spatial.ConvexHull(points).equations.T
  centres = np.arange(resolution) + 0.5
  # Each edge allows x * column + y * row + offset <= 0: per row, an interval.
  limit = -(y * centres[:, None] + offset)
  with np.errstate(divide="ignore", invalid="ignore"):
    bound = limit / x
  last = np.where(x > 1e-9, bound, np.inf).min(1)
  first = np.where(x < -1e-9, bound, -np.inf).max(1)
  empty = ((np.abs(x) <= 1e-9) & (limit < 0)).any(1)
  last = np.where(empty, -np.inf, last)
  return (centres >= first[:, None]) & (centres <= last[:, None])
