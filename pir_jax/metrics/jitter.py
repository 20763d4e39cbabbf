"""Jitter of the face: accelerations of points that only the head moves.

A head that turns or nods moves its points smoothly; jitter shows in the second
difference. Speech must not move the points: take forehead, nose and corners of
the eyes. The landmark detector adds noise of its own, so compare the value only
with the source's, from the same detector.

t frames, k points.
"""

import numpy as np
from jaxtyping import Float, Int


def acceleration(
  points: Float[np.ndarray, "t k 2"],
  index: Int[np.ndarray, "t"] | None = None,
) -> Float[np.ndarray, "t"]:
  """Computes the RMS second difference of each frame's points, per frame^2.

  Args:
    points: NaN where there is no face.
    index: each frame's index in the clip; only frames whose neighbours are
      consecutive count. None: all are consecutive.

  Returns:
    NaN in the first and last frame, and beside a gap.
  """
  index = np.arange(len(points)) if index is None else index
  result = np.full(len(points), np.nan)
  if len(points) < 3:
    return result
  points = points.astype(np.float64)
  second = points[2:] - 2 * points[1:-1] + points[:-2]
  result[1:-1] = np.sqrt(np.square(second).sum(-1).mean(-1))
  steps = np.diff(index)
  result[1:-1][(steps[1:] != 1) | (steps[:-1] != 1)] = np.nan
  return result


def ratio(
  output: Float[np.ndarray, "t"], source: Float[np.ndarray, "t"]
) -> float:
  """Computes a clip's RMS acceleration over its source's.

  Frames with NaN in either are left out; NaN without any other, or where the
  source is perfectly still.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  power = np.square(source[valid]).sum()
  if power == 0:
    return float("nan")
  return float(np.sqrt(np.square(output[valid]).sum() / power))
