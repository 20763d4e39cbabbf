"""Motion of a tracked head: lips, turns, blinks.

t frames, l landmarks.
"""

import numpy as np
from jaxtyping import Float

from pir_jax.metrics import lips

_PART = 4096  # Frames that are measured together.


def openings(
  landmarks: Float[np.ndarray, "t l _"],
) -> Float[np.ndarray, "t"]:
  """Measures the lips; in parts, since doubles of an hour are a lot."""
  parts = range(0, len(landmarks), _PART)
  return np.concatenate(
    [lips.opening(landmarks[i : i + _PART, :, :2]) for i in parts]
  )


def angles(
  pose: Float[np.ndarray, "t 4 4"],
) -> Float[np.ndarray, "t 3"]:
  """Computes yaw, pitch and roll of the head before the camera, radians.

  Zero looks into the camera's direction; signs as in `Quality`.

  Args:
    pose: camera-to-world, the world being the head's frame (y up, z out of
      the face), OpenCV axes.
  """
  # Rows of camera-to-world are the head's axes in the camera.
  ahead, up = pose[:, 2, :3], pose[:, 1, :3]
  yaw = np.arctan2(ahead[:, 0], -ahead[:, 2])
  pitch = np.arcsin(np.clip(-ahead[:, 1], -1, 1))
  # What is left once the head is turned back: the tilt about the view.
  level = np.stack([np.cos(yaw), np.zeros(len(yaw)), np.sin(yaw)], -1)
  across = np.sum(up * level, -1)
  roll = np.arctan2(across, np.sqrt(np.maximum(1 - across**2, 0)))
  return np.stack([yaw, pitch, roll], -1).astype(np.float64)


def count_dips(
  values: Float[np.ndarray, "t"], radius: int, depth: float
) -> int:
  """Counts how often a curve falls and rises by `depth` within `radius`."""
  count, last = 0, -radius
  for place in np.flatnonzero(np.isfinite(values)):
    before = values[max(0, place - radius) : place + 1]
    after = values[place : place + radius + 1]
    lowest = min(np.nanmin(before), np.nanmin(after))
    rim = min(np.nanmax(before), np.nanmax(after))
    if values[place] == lowest and rim - lowest >= depth:
      count += int(place - last > radius // 2)
      last = place
  return count
