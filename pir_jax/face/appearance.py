"""The appearance of a face: colours at its landmarks, which re-identify it.

A landmark lies on the same spot of a face in every pose and expression, so
the colours there make a picture of the face that hardly depends on either.
It separates the people of one video, in place of a face recognition network;
the measure and its thresholds are ours.

h height, w width, l landmarks, n examples.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from pir_jax.face import detector

# Within a video: distances below are one person, given some examples of each.
# Of four people in three clips, tracklets of eight examples over a second were
# 0.05 (95 % of them) from one of the same person, at least 0.057 (half of them
# 0.1) from one of another.
SAME = 0.058
_SIZE = 48  # Pixels across the square that is sampled, and their blur: details
_BLUR = 1.5  # of the skin would tell a pose better than a person.
_SIDE = 2.6  # The square's side in distances between eyes, or eyes and mouth.
_BLACK = 10.0  # Grey levels added so that noise in the dark counts little.
_LUMA = np.array([0.3, 0.59, 0.11])
_CORNERS = (33, 263, 61, 291)  # Outer corners of the eyes, then of the mouth.
# Forehead, brows and eyes, which a hand before the mouth leaves free.
# fmt: off
_UPPER = [
  10, 338, 297, 332, 284, 251, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6,
  33, 133, 159, 145, 263, 362, 386, 374, 70, 63, 105, 66, 107, 336, 296, 334,
  293, 300, 46, 53, 52, 65, 55, 285, 295, 282, 283, 276]
# fmt: on


def describe(
  image: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "l 3"]
) -> Float[np.ndarray, "l 3"]:
  """Returns log colours at the landmarks, normalised for the light."""
  right, left, *mouth = points[list(_CORNERS), :2]
  eyes, mouth = (right + left) / 2, (mouth[0] + mouth[1]) / 2
  size = max(np.hypot(*(left - right)), np.hypot(*(eyes - mouth)), 1.0)
  x, y = (eyes + mouth) / 2
  angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
  region = detector.Region(float(x), float(y), float(_SIDE * size), angle)
  crop = Image.fromarray(detector.sample(image, region, _SIZE))
  crop = np.asarray(crop.filter(ImageFilter.GaussianBlur(_BLUR)))
  cos, sin = np.cos(angle), np.sin(angle)
  local = (points[:, :2] - [x, y]) @ np.array([[cos, -sin], [sin, cos]])
  local = (local / region.side + 0.5) * _SIZE - 0.5
  column, row = np.clip(np.rint(local), 0, _SIZE - 1).astype(int).T
  colours = np.log(crop[row, column] + np.float32(_BLACK))
  return (colours - (colours @ _LUMA).mean()).astype(np.float32)


def distance(a: Float[np.ndarray, "l 3"], b: Float[np.ndarray, "l 3"]) -> float:
  """Returns the median difference, which a half-hidden face hardly changes."""
  return float(_distances(a[None], b[None])[0, 0])


def upper_distance(
  a: Float[np.ndarray, "l 3"], b: Float[np.ndarray, "l 3"]
) -> float:
  """Returns the distance of the upper faces, whatever hides the mouth."""
  upper = (x[_UPPER] - (x[_UPPER] @ _LUMA).mean() for x in (a, b))
  return distance(*upper)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the distance of every pair."""
  a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
  return np.stack([np.median(np.abs(row - b), axis=1) for row in a])


class Gallery:
  """A few examples of one face, as different from each other as it was."""

  def __init__(self, capacity: int = 10):
    self._capacity = capacity
    self._spread = 0.02
    self.examples: list[Float[np.ndarray, "l 3"]] = []

  def add(self, example: Float[np.ndarray, "l 3"]) -> None:
    """Keeps an example unless one like it is there."""
    if self._new(example):
      self.examples.append(example)
    while len(self.examples) > self._capacity:
      self._spread *= 1.2
      old, self.examples = self.examples, []
      for example in old:
        if self._new(example):
          self.examples.append(example)

  def _new(self, example: np.ndarray) -> bool:
    return not self.examples or self.distance_to(example) >= self._spread

  def distance_to(self, example: Float[np.ndarray, "l 3"]) -> float:
    """Returns the distance to the nearest example."""
    return float(_distances(example[None], np.stack(self.examples)).min())

  def distance(self, other: "Gallery") -> float:
    """Returns the distance of the two most similar examples."""
    pair = np.stack(self.examples), np.stack(other.examples)
    return float(_distances(*pair).min())
