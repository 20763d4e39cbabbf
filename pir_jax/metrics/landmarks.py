"""Landmark distance of the mouth (LMD).

t frames, k points.
"""

import numpy as np
from jaxtyping import Float


def mouth_distance(
  points: Float[np.ndarray, "t k 2"], target: Float[np.ndarray, "t k 2"]
) -> float:
  """Computes the mean distance of mouth points, centred in each frame.

  Chen et al. 2018, with the 20 mouth points of the 68 (49 to 68 counted from
  1): Euclidean, in the points' own unit, the mean over points and over frames.
  Report it with the detector and the image size. The centring hides a mouth
  that is moved as a whole. Frames with NaN (no face) in either are left out.

  Raises:
    ValueError: no frame is left.
  """
  valid = np.isfinite(points).all((1, 2)) & np.isfinite(target).all((1, 2))
  if not valid.any():
    raise ValueError(
      "no frame has landmarks in both clips: check that a face is detected"
    )
  a, b = (x[valid].astype(np.float64) for x in (points, target))
  a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
  return float(np.linalg.norm(a - b, axis=-1).mean())
