"""The weights of the fit, and the landmarks of a clip scaled for it.

t frames, l landmarks, p pairs of opposite landmarks, c 2 or 3 axes.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from pir_jax.face import gauss_newton, landmark_squares, morphable

CHUNK = 256  # Frames processed together: bounds memory.
# Closed eyes still have this share of the open eye's gap: lashes hide the line
# between the lids. Measured on two people who blink 14 times; ours.
LID_REST = 0.25
_OPEN_PERCENTILE = 75  # Of the gaps of a clip: an eye that is open.
# A point counts fully where the skin faces the camera, and hardly at all where
# it faces away: beyond the silhouette a tracker can only guess. Cosines.
_HIDDEN, _VISIBLE = -0.15, 0.2
_LEAST_VISIBLE = 0.05


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Weights of the fit's parts; all of them are our choice.

  Attributes:
    num_steps: most Gauss-Newton steps.
    tolerance: relative decrease of the cost at which to stop.
    noise: standard error of a landmark at first, as a share of face height;
      then noise_share of the residual, within noise_range. Less noise favours
      the head's shapes over offsets in proportion.
    landmark_weight: of a point's squared error. Points of one frame err
      together, so a point counts for less than one.
    lip_weight: of a point on the lips, relative to others.
    rigid_weight: of a point that speech does not move, so that nodding does
      not compensate for a jaw that the model opens too little.
    pair_weight: of the difference of two opposite points of lips or eyelids.
    huber: errors above this many standard errors count linearly.
    identity_weight: of the identity's ridge, times the number of frames: a
      model's error does not average out over frames.
    expression_sigma: expected size of expression coefficients, as a share of
      their range (blendshapes) or standard deviation (principal components).
    bound_sigma: how far blendshapes may leave [0, 1] during the fit.
    offset_sigma: of a landmark's fixed offset, head units.
    expression_step: expected change of a coefficient in 1/25 s.
    rotation_step: of the rotation, radians.
    translation_step: of the translation, head units.
    focal_error: the focal length is estimated where its standard error is at
      most this share of it.
    focal_gain: and where the cost then falls by this share: errors of the head
      model alone gain up to 3 % on clips from studio cameras.
    depth_range: and where the median depth stays within these head units.
  """

  num_steps: int = 24
  tolerance: float = 1e-4
  noise: float = 0.006
  noise_share: float = 0.7
  noise_range: tuple[float, float] = (0.002, 0.02)
  landmark_weight: float = 0.05
  lip_weight: float = 2.0
  rigid_weight: float = 5.0
  pair_weight: float = 10.0
  huber: float = 2.0
  identity_weight: float = 0.25
  expression_sigma: float = 0.5
  bound_sigma: float = 0.03
  offset_sigma: float = 0.01
  expression_step: float = 0.2
  rotation_step: float = 0.012
  translation_step: float = 0.012
  focal_error: float = 0.1
  focal_gain: float = 0.05
  depth_range: tuple[float, float] = (0.8, 12.0)


def chunks(num_frames: int, size: int = CHUNK) -> Iterator[slice]:
  """Yields slices that cover all frames, in order."""
  for start in range(0, num_frames, size):
    yield slice(start, min(start + size, num_frames))


def finite(
  landmarks: Float[np.ndarray, "t l c"],
) -> Bool[np.ndarray, "t"]:
  """Returns a mask of the frames whose landmarks are all finite."""
  result = np.empty(len(landmarks), bool)
  for part in chunks(len(landmarks)):
    result[part] = np.isfinite(landmarks[part]).all((1, 2))
  return result


def heights(
  landmarks: Float[np.ndarray, "t l c"],
) -> Float[np.ndarray, "t"]:
  """Returns the landmarks' height in each frame, pixels; NaN without any."""
  result = np.empty(len(landmarks), np.float32)
  for part in chunks(len(landmarks)):
    result[part] = np.ptp(landmarks[part, :, 1], axis=1)
  return result


def lid_gaps(
  landmarks: Float[np.ndarray, "t l c"],
) -> Float[np.ndarray, "t p"]:
  """Returns the distances of the pairs of eyelid points, pixels."""
  upper, lower = np.array(gauss_newton.LID_PAIRS).T
  gaps = np.empty((len(landmarks), len(upper)), np.float32)
  for part in chunks(len(landmarks)):
    points = landmarks[part, :, :2]
    gaps[part] = np.linalg.norm(points[:, upper] - points[:, lower], axis=-1)
  return gaps


def open_lids(
  landmarks: Float[np.ndarray, "t l c"], present: Bool[np.ndarray, "t"]
) -> Float[np.ndarray, "p"]:
  """Estimates the open eye's gap of each eyelid pair, as a share of height."""
  share = lid_gaps(landmarks)[present] / heights(landmarks)[present, None]
  return np.percentile(share, _OPEN_PERCENTILE, axis=0).astype(np.float32)


def close_lids(
  points: Float[np.ndarray, "t l 2"], open_gap: Float[np.ndarray, "p"]
) -> Float[np.ndarray, "t l 2"]:
  """Moves eyelid points so that a closed eye has no gap.

  The gap is stretched linearly: `LID_REST` of the open gap becomes 0.

  Args:
    points: in units of face height.
    open_gap: in the same unit, from `open_lids`.
  """
  points = points.copy()
  upper, lower = np.array(gauss_newton.LID_PAIRS).T
  middle = (points[:, upper] + points[:, lower]) / 2
  half = (points[:, upper] - points[:, lower]) / 2
  gap = 2 * np.linalg.norm(half, axis=-1)
  rest = LID_REST * open_gap
  stretched = (gap - rest) / (1 - LID_REST)
  half *= (stretched / np.maximum(gap, 1e-6))[..., None]
  points[:, upper], points[:, lower] = middle + half, middle - half
  return points


def normals(model: morphable.FaceModel) -> Float[np.ndarray, "l 3"]:
  """Computes outward unit normals of the mean head at the landmarks."""
  corners = model.mean[model.triangles]
  across = np.cross(
    corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  )
  total = np.zeros_like(model.mean)
  for k in range(3):
    np.add.at(total, model.triangles[:, k], across)
  total /= np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)
  at = np.einsum(
    "lkc,lk->lc", total[model.landmark_triangles], model.landmark_weights
  )
  return at / np.maximum(np.linalg.norm(at, axis=-1, keepdims=True), 1e-12)


def visibility(
  state: gauss_newton.State,
  bases: landmark_squares.Bases,
  outward: Float[np.ndarray, "l 3"],
) -> Float[np.ndarray, "t l"]:
  """Computes how far each point's skin faces the camera, in [0, 1].

  Args:
    state: of the fit.
    bases: of the head.
    outward: from `normals`.
  """
  rotation = np.asarray(state.rotation)
  shape = np.asarray(bases.mean)
  points = shape @ rotation.swapaxes(1, 2)
  points += np.asarray(state.translation)[:, None]
  towards = -points / np.linalg.norm(points, axis=-1, keepdims=True)
  cosine = np.sum(outward @ rotation.swapaxes(1, 2) * towards, -1)
  share = (cosine - _HIDDEN) / (_VISIBLE - _HIDDEN)
  return np.clip(share, _LEAST_VISIBLE, 1).astype(np.float32)


def gather(
  landmarks: Float[np.ndarray, "t l c"],
  present: Bool[np.ndarray, "t"],
  shot: Int[np.ndarray, "t"],
  frames: Int[np.ndarray, "n"],
  num_padded: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Collects the landmarks of some frames, padded to a fixed count.

  A frame without a face takes the landmarks of the nearest frame with one, as
  its initial value; its weight is 0.

  Returns:
    Landmarks [num_padded l c]; known [num_padded], whether a frame has a face;
    link [num_padded - 1], whether each frame constrains the next one.
  """
  padded = np.append(frames, np.full(num_padded - len(frames), frames[-1]))
  known = present[padded]
  known[len(frames) :] = False
  observed = np.flatnonzero(known)
  nearest = np.arange(num_padded)
  if len(observed):
    nearest = np.interp(nearest, observed, np.arange(len(observed)))
    nearest = observed[nearest.round().astype(int)]
  link = (np.diff(padded) == 1) & (np.diff(shot[padded]) == 0)
  link[len(frames) - 1 :] = True  # The last frame constrains the padding.
  return np.array(landmarks[padded[nearest]]), known, link


def problem(
  points: Float[np.ndarray, "t l 2"],
  known: Bool[np.ndarray, "t"],
  link: Bool[np.ndarray, "n"],
  weight: Float[np.ndarray, "l"],
  pair_weight: Float[np.ndarray, "p"],
) -> gauss_newton.Data:
  """Returns the observations in the solver's form."""
  share = known[:, None].astype(np.float32)
  arrays = points, share * weight, share * pair_weight, link
  arrays = [np.asarray(array, np.float32) for array in arrays]
  return gauss_newton.Data(*jax.device_put(arrays))
