"""Audio-driven lips: vertex error, opening, correlation, rest.

Frames with values that are not finite (no face) are left out of every mean.
t frames, v lip vertices, l landmarks, d 2 or 3 axes, s frames of speech.
"""

import numpy as np
from jaxtyping import Float

# Points of MediaPipe's face mesh.
INNER_LIPS = ((13, 14), (82, 87), (312, 317))  # (upper, lower), three columns.
CHIN, FOREHEAD = 152, 10
NUM_LANDMARKS = 468  # 478 with the irises, which come last.


def lip_vertex_error(
  vertices: Float[np.ndarray, "t v 3"], target: Float[np.ndarray, "t v 3"]
) -> float:
  """Computes FaceFormer's lip vertex error: the mean of each frame's maximum.

  Fan et al. 2022: in each frame the largest Euclidean distance over the lip
  vertices, then the mean over frames. A distance in the vertices' unit, not its
  square, which some published tables hold under the same name.

  Raises:
    ValueError: no frame is left.
  """
  distance = np.linalg.norm(
    vertices.astype(np.float64) - target.astype(np.float64), axis=-1
  )
  return float(np.mean(_finite(distance.max(1))))


def opening(
  landmarks: Float[np.ndarray, "*t l d"],
) -> Float[np.ndarray, "*t"]:
  """Measures the gap between the inner lips, in the unit of the points.

  The mean over three columns of the upper lip's height above the lower one, in
  the direction from chin to forehead: invariant to the head's rotation and
  translation in the plane (in space, for 3-d points). Lips that pass through
  each other are below zero, not open.

  Args:
    landmarks: MediaPipe's 468 points, or 478 with the irises, in 2-d or 3-d;
      which way the axes point does not matter, but their units must be equal.

  Returns:
    Float64; NaN where the points are NaN.

  Raises:
    ValueError: these are not MediaPipe's landmarks.
  """
  if landmarks.shape[-2] < NUM_LANDMARKS or landmarks.shape[-1] not in (2, 3):
    raise ValueError(
      f"landmarks of shape {landmarks.shape} must be MediaPipe's "
      f"{NUM_LANDMARKS} points in 2-d or 3-d: (..., {NUM_LANDMARKS}, 3)"
    )
  points = landmarks.astype(np.float64)
  up = points[..., FOREHEAD, :] - points[..., CHIN, :]
  up = up / np.linalg.norm(up, axis=-1, keepdims=True)
  upper, lower = (list(column) for column in zip(*INNER_LIPS, strict=True))
  gap = np.mean(points[..., upper, :] - points[..., lower, :], axis=-2)
  return np.asarray(np.sum(gap * up, axis=-1))


def correlation(a: Float[np.ndarray, "t"], b: Float[np.ndarray, "t"]) -> float:
  """Computes Pearson's correlation over time, in [-1, 1].

  0.0 where one of the two is constant.

  Raises:
    ValueError: fewer than two frames are left.
  """
  valid = np.isfinite(a) & np.isfinite(b)
  if np.count_nonzero(valid) < 2:
    raise ValueError(
      "correlation needs two frames finite in both: use a longer clip"
    )
  x, y = _direction(a[valid]), _direction(b[valid])
  return float(np.clip(np.sum(x * y), -1.0, 1.0))


def silence_rank(
  silent: Float[np.ndarray, "t"], speech: Float[np.ndarray, "s"]
) -> float:
  """Computes the rank of the mouth's opening in silence among speech frames.

  Share of `speech` below the median of `silent`: 0.0 rests more closed than
  (or like) the most closed frame of speech, 1.0 more open than all of them.

  Args:
    silent: openings of the mouth in silence.
    speech: openings of the mouth in speech.

  Raises:
    ValueError: no frame is left in one of them.
  """
  rest = np.median(_finite(silent))
  return float(np.mean(_finite(speech) < rest))


def _finite(values):
  kept = values[np.isfinite(values)]
  if not len(kept):
    raise ValueError("no frame is finite: check that a face is detected")
  return kept


def _direction(values):
  """Returns the unit vector of the centred values; zero for a constant."""
  if values.min() == values.max():  # Rounding would leave a difference.
    return np.zeros(len(values))
  values = values.astype(np.float64)
  centred = values - values.mean()
  centred = centred / np.abs(centred).max()  # Squares could underflow.
  return centred / np.linalg.norm(centred)
