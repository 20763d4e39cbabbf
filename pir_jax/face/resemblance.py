"""How alike two faces look: whether a video shows who is expected in it.

Fisher's discriminant of the colours at the landmarks (`appearance`), fitted by
experiments/resemblance.py: directions in which people differ and one person in
other light, poses and expressions does not. No face recognition: it separates
most strangers, not a look-alike.

l landmarks, n examples, d directions.
"""

import functools
import pathlib

import numpy as np
from jaxtyping import Float

# Below this two videos show different people. Of people whom it was not fitted
# to, one person's recordings in other light are above, see RESULTS.
SAME = 0.65
FILE = pathlib.Path(__file__).with_name("resemblance.npz")


def centred(examples: Float[np.ndarray, "n l 3"]) -> Float[np.ndarray, "n _"]:
  """Takes out of log colours what a tint of the light adds, as rows."""
  free = examples - np.median(examples, axis=1, keepdims=True)
  return free.reshape(len(free), -1)


def look(examples: Float[np.ndarray, "n l 3"]) -> Float[np.ndarray, "d"]:
  """Returns what a face looks like, of unit length, from some examples of it.

  Args:
    examples: from `appearance.describe`.
  """
  mean, directions = _fitted()
  place = (centred(examples).mean(0) - mean) @ directions
  return np.float32(place / max(np.linalg.norm(place), 1e-6))


def resemblance(a: Float[np.ndarray, "d"], b: Float[np.ndarray, "d"]) -> float:
  """Returns the cosine of two looks, 1 for the very same."""
  return float(a @ b)


@functools.cache
def _fitted() -> tuple[np.ndarray, np.ndarray]:
  with np.load(FILE, allow_pickle=False) as arrays:
    return tuple(np.float32(arrays[n]) for n in ("mean", "directions"))
