"""Lips that speech drives: vertex error, opening, correlation, rest.

Frames with a number that is not finite (no face found) are left out of every
mean. t frames, v lip vertices, l landmarks, d 2 or 3 axes, s frames of speech.
"""

import numpy as np
from jaxtyping import Float

# Points of MediaPipe's face mesh.
INNER_LIPS = ((13, 14), (82, 87), (312, 317))  # (upper, lower), three columns.
CHIN, FOREHEAD = 152, 10
NUM_LANDMARKS = 468  # 478 with the irises, which come last.


def lip_vertex_error(
  vertices: Float[np.ndarray, "t v 3"], truth: Float[np.ndarray, "t v 3"]
) -> float:
  """FaceFormer's lip vertex error: the worst lip vertex of a frame, averaged.

  Fan et al. 2022: in each frame the largest Euclidean distance over the lip
  vertices, then the mean over frames. A distance in the unit given, not its
  square, which some published tables hold under the same name.

  Raises:
    ValueError: no frame is left.
  """
  distance = np.linalg.norm(
    vertices.astype(np.float64) - truth.astype(np.float64), axis=-1
  )
  return float(np.mean(_finite(distance.max(1))))


def opening(
  landmarks: Float[np.ndarray, "*t l d"],
) -> Float[np.ndarray, "*t"]:
  """Gap between the inner lips, in the unit of the points.

  The mean over three columns of how far the upper lip lies above the lower
  one, measured from the chin towards the forehead: turning and moving the head
  in the plane (in space, for 3-d points) changes nothing, and lips that pass
  through each other are below zero, not open.

  Args:
    landmarks: MediaPipe's 468 points, or 478 with the irises, in 2-d or 3-d;
      which way the axes point does not matter, but their units must be equal.

  Returns:
    Float64; not a number where the points are not.

  Raises:
    ValueError: these are other landmarks.
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
  """Pearson's correlation over time, in [-1, 1].

  0.0 where one of the two is constant: it follows nothing.

  Raises:
    ValueError: fewer than two frames are left.
  """
  valid = np.isfinite(a) & np.isfinite(b)
  if np.count_nonzero(valid) < 2:
    raise ValueError(
      "correlation needs two frames with numbers in both: give a longer clip"
    )
  x, y = _direction(a[valid]), _direction(b[valid])
  return float(np.clip(np.sum(x * y), -1.0, 1.0))


def silence_rank(
  silent: Float[np.ndarray, "t"], spoken: Float[np.ndarray, "s"]
) -> float:
  """How closed the mouth rests: the rank of silence among the frames of speech.

  Share of `spoken` below the median of `silent`: 0.0 rests more closed than
  (or like) the most closed frame of speech, 1.0 more open than all of them.

  Args:
    silent: openings of the mouth while nothing is said.
    spoken: the same while there is speech.

  Raises:
    ValueError: no frame is left in one of them.
  """
  rest = np.median(_finite(silent))
  return float(np.mean(_finite(spoken) < rest))


def _finite(values):
  kept = values[np.isfinite(values)]
  if not len(kept):
    raise ValueError("no frame has numbers: check that a face was found")
  return kept


def _direction(values):
  """Unit vector of the deviations; zero for a constant."""
  if values.min() == values.max():  # Rounding would leave some deviation.
    return np.zeros(len(values))
  values = values.astype(np.float64)
  centred = values - values.mean()
  centred = centred / np.abs(centred).max()  # Squares could underflow.
  return centred / np.linalg.norm(centred)
