"""Clocks of a clip: source frames at any rate, networks at FRAME_RATE.

t source frames, k ticks of FRAME_RATE, e coefficients. Times are seconds from
the clip's first frame; a tick i is the time i / FRAME_RATE.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from pir_jax.types import FRAME_RATE

HELD_OUT_SHARE = 1 / 11  # Of a clip's time, at its end; our choice.


def duration(times: Float[np.ndarray, "t"]) -> float:
  """Computes seconds from the first frame to the end of the last one.

  A frame lasts until the next one; the last lasts as long as the median frame
  (a clip of one frame: one tick).
  """
  if len(times) < 2:
    return 1.0 / FRAME_RATE
  return float(times[-1] - times[0] + np.median(np.diff(times)))


def tick_times(times: Float[np.ndarray, "t"]) -> Float[np.ndarray, "k"]:
  """Returns the ticks of FRAME_RATE that a clip covers."""
  num_ticks = max(1, round(duration(times) * FRAME_RATE))
  return times[0] + np.arange(num_ticks) / FRAME_RATE


def nearest_frames(
  times: Float[np.ndarray, "t"], ticks: Float[np.ndarray, "k"]
) -> Int[np.ndarray, "k"]:
  """Returns the source frame nearest to each tick; ties go to the earlier."""
  after = np.clip(np.searchsorted(times, ticks), 1, max(1, len(times) - 1))
  if len(times) == 1:
    return np.zeros(len(ticks), np.int64)
  before = after - 1
  # One microsecond: container time bases round times, and ties must not
  # depend on that.
  later = times[after] - ticks < ticks - times[before] - 1e-6
  return np.where(later, after, before)


def select_frames(times: Float[np.ndarray, "t"]) -> Int[np.ndarray, "k"]:
  """Selects training frames: nearest to the ticks, each at most once."""
  return np.unique(nearest_frames(times, tick_times(times)))


def interpolate(
  times: Float[np.ndarray, "t"],
  values: Float[np.ndarray, "t e"],
  known: Bool[np.ndarray, "t"],
  ticks: Float[np.ndarray, "k"],
  *,
  longest: float = math.inf,
) -> tuple[Float[np.ndarray, "k e"], Bool[np.ndarray, "k"]]:
  """Interpolates values at the ticks, linearly between source frames.

  Args:
    times: of the source frames, increasing.
    values: at them.
    known: whether they are valid.
    ticks: times of the result.
    longest: time between two frames that is interpolated: a video of variable
      rate may hold one frame for seconds.

  Returns:
    The values, and whether every frame that went into each one was known.
  """
  after = np.clip(np.searchsorted(times, ticks), 0, len(times) - 1)
  before = np.maximum(after - 1, 0)
  span = times[after] - times[before]
  weight = np.where(
    span > 0, (ticks - times[before]) / np.where(span > 0, span, 1), 1.0
  )
  weight = np.clip(weight, 0.0, 1.0)
  # A tick on a frame (to container rounding) takes that frame alone, so that a
  # gap does not spread to its neighbours.
  weight = np.where(weight < 1e-3, 0.0, np.where(weight > 0.999, 1.0, weight))
  out = (1 - weight)[:, None] * np.where(weight < 1, 1, 0)[:, None] * values[
    before
  ] + weight[:, None] * values[after]
  valid = (known[before] | (weight == 1)) & (known[after] | (weight == 0))
  # Container time bases round times.
  valid &= (span <= longest + 1e-3) | (weight == 0) | (weight == 1)
  return out.astype(values.dtype), valid


def held_out_start(times: Float[np.ndarray, "t"]) -> int:
  """Returns the held-out tail's first frame; earlier ones are for training."""
  edge = times[0] + duration(times) * (1 - HELD_OUT_SHARE)
  return int(np.searchsorted(times, edge))
