"""Masks of the face and the head.

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

from pir_jax.face import fitting, hulls, morphable

REGIONS = ("face", "lower")
LOWER_LIDS = [145, 374]  # Landmarks: the middle of each.


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
  points = face_points(model, some, config)
  margin = config.face_margin * heights(model, some)
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
    [_project(shape[None], fit), face_points(model, fit, config)], axis=1
  )
  margin = config.head_margin * heights(model, fit)
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
  points = face_points(model, fit, config, lips)
  margin = config.face_margin * heights(model, fit)
  return hulls.rasterise(
    points, margin, window, resolution, resampled=resampled
  )


def face_points(
  model: morphable.FaceModel,
  fit: fitting.Fit,
  config: Config,
  chosen: Bool[np.ndarray, "l"] | bool = True,
) -> Float[np.ndarray, "t n 2"]:
  """Projects landmarks at rest and with the jaw widest; source pixels."""
  rest = at_rest(model, fit)
  jaw = config.jaw_open * morphable.jaw_open(model)
  wide = rest + np.tensordot(jaw, model.landmark_expression, axes=1)
  shapes = np.concatenate([rest, wide])
  valid = np.tile(model.landmark_valid & chosen, 2)
  return _project(shapes[valid][None], fit)


def _below_eyes(
  model: morphable.FaceModel, fit: fitting.Fit, config: Config
) -> Float[np.ndarray, "t 3"]:
  """Computes (a, b, c) of lines under the eyes: below, a x + b y + c <= 0."""
  lids = at_rest(model, fit)[LOWER_LIDS]
  middle = lids.mean(0)
  chin = middle - np.array([0, np.ptp(model.landmark_mean[:, 1]), 0])
  points = _project(np.stack([*lids, middle, chin])[None], fit)
  down = points[:, 3] - points[:, 2]
  down /= np.linalg.norm(down, axis=-1, keepdims=True)
  border = np.einsum("tnc,tc->tn", points[:, :2], down).max(1)
  border += config.eye_margin * heights(model, fit)
  return np.append(-down, border[:, None], axis=1)


def at_rest(
  model: morphable.FaceModel, fit: fitting.Fit
) -> Float[np.ndarray, "l 3"]:
  """Returns landmarks of the person at rest."""
  return (
    model.landmark_mean
    + fit.offset
    + np.tensordot(fit.identity, model.landmark_identity, axes=1)
  )


def heights(
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
