"""Does the face tremble? Accelerations of points that only the head moves.

A head that turns or nods moves its points smoothly; what trembles from frame to
frame shows in the second difference. Speech must not move the points, or its
own quickness would count: take forehead, nose and corners of the eyes. Part of
the number is the landmark detector's own noise, so it is only ever compared
with that of the source, found by the same detector.

t frames, k points.
"""

import numpy as np
from jaxtyping import Float, Int


def acceleration(
  points: Float[np.ndarray, "t k 2"],
  index: Int[np.ndarray, "t"] | None = None,
) -> Float[np.ndarray, "t"]:
  """RMS second difference of each frame's points, in their unit a frame^2.

  Args:
    points: not-a-number where there is no face.
    index: which frame of the clip each is; only frames whose neighbours are
      the clip's own neighbours count. None: all in a row.

  Returns:
    Not-a-number in the first and last frame, and beside a gap.
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
  """RMS of a clip's accelerations over that of its source's.

  Frames without a number in either are left out; not-a-number without any, or
  where the source stands perfectly still.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  power = np.square(source[valid]).sum()
  if power == 0:
    return float("nan")
  return float(np.sqrt(np.square(output[valid]).sum() / power))
