"""Landmark distance of the mouth (LMD): does it open and close as it should?

t frames, k points.
"""

import numpy as np
from jaxtyping import Float


def mouth_distance(
  points: Float[np.ndarray, "t k 2"], truth: Float[np.ndarray, "t k 2"]
) -> float:
  """Mean distance of the mouth's points, each frame's set centred on its mean.

  Chen et al. 2018, with the 20 mouth points of the 68 (49 to 68 counted from
  1): Euclidean, in the points' own unit, the mean over points and over frames.
  Name the detector and the picture's size with the number. The centring hides
  a mouth that is moved as a whole. Frames with a point that is not a number (no
  face found) in either are left out.

  Raises:
    ValueError: no frame is left.
  """
  valid = np.isfinite(points).all((1, 2)) & np.isfinite(truth).all((1, 2))
  if not valid.any():
    raise ValueError(
      "no frame has landmarks in both clips: check that a face was found"
    )
  a, b = (x[valid].astype(np.float64) for x in (points, truth))
  a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
  return float(np.linalg.norm(a - b, axis=-1).mean())
