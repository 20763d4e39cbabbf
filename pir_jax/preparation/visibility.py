"""Which frames show enough of a face to learn from, and when they do not.

From what the pictures show (`face.sight`), not from the mesh, which has a place
for every landmark whatever hides it. The limits are ours.

t source frames.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from pir_jax.face import detector, sight
from pir_jax.preparation import tracking

SMOOTHING = 0.3  # Seconds over which single frames' evidence is outvoted.
OUTSIDE = 0.04  # Share of the outline: two of its 36 points.
DARK, WHITE = 18.0, 0.4  # Luma; share of the lower face.
MOUTH = 0.5  # Evidence; 1.6 % of ordinary frames have less than none.
# Edges along a row: nine of ten pictures with letters have 27 to 85, of 106
# clips without any the most have 21, a burnt out face some more.
STROKES, _BURNT = 28.0, 0.15
_OFTEN, _NUM_TURNED = 0.3, 5  # Share hidden; pictures looked at upside down.
_LONGEST_GAP = 0.5  # Seconds between spans that are told as one.


def faults(
  seen: sight.Sight, measured: Bool[np.ndarray, "t"], fps: float
) -> dict[str, Bool[np.ndarray, "t"]]:
  """Marks the frames that cannot be learnt from, by what is wrong.

  Args:
    seen: in the frames.
    measured: frames with a face.
    fps: frames a second.

  Returns:
    hidden (the lips), cut (by the border), dark, white and text.
  """
  values = {
    name: _smooth(getattr(seen, name), measured, fps)
    for name in ("mouth", "outside", "light", "white", "strokes")
  }
  with np.errstate(invalid="ignore"):
    return {
      "hidden": values["mouth"] < MOUTH,
      "cut": values["outside"] > OUTSIDE,
      "dark": values["light"] < DARK,
      "white": values["white"] > WHITE,
      "text": (values["strokes"] > STROKES) & (values["white"] < _BURNT),
    }


def learnable(tracked: tracking.TrackedVideo) -> Bool[np.ndarray, "t"]:
  """Marks the frames that can be trained on: measured, and without a fault."""
  measured = tracked.measured
  if tracked.sight is None:
    return measured
  wrong = faults(tracked.sight, measured, float(tracked.video.rate))
  return measured & ~np.any(list(wrong.values()), axis=0)


def _smooth(values, measured, fps) -> Float[np.ndarray, "t"]:
  """Takes the median over a short time; NaN without a face."""
  result = np.full(len(measured), np.nan)
  known = np.flatnonzero(measured & np.isfinite(values))
  if len(known):
    size = 2 * round(SMOOTHING * fps / 2) + 1
    result[known] = ndimage.median_filter(values[known], size, mode="nearest")
  return result


def measure(tracked: tracking.TrackedVideo) -> dict:
  """Returns the figures of `quality.Quality` that pictures alone tell."""
  names = ("learnable", "hidden", "cut", "text", "light", "white", "even")
  times = ("hidden_times", "cut_times", "text_times")
  seen, measured = tracked.sight, tracked.measured
  if seen is None or not measured.any():
    return dict.fromkeys((*names, "tilt")) | {name: [] for name in times}
  wrong = faults(seen, measured, float(tracked.video.rate))

  def median(values):
    return round(float(np.median(values[measured])), 3)

  figures = {
    name: round(float(wrong[name][measured].mean()), 4)
    for name in ("hidden", "cut", "text")
  }
  figures |= {
    f"{name}_times": spans(wrong[name], tracked.track.times)
    for name in ("hidden", "cut", "text")
  }
  return figures | {
    "learnable": round(float(learnable(tracked).mean()), 4),
    "light": median(seen.light),
    "white": median(seen.white),
    "even": median(seen.even),
    "tilt": _tilt(tracked, seen.roll[measured], figures["hidden"]),
  }


def _tilt(tracked, roll, hidden: float) -> float:
  """Returns the head's tilt in degrees; 180 where turning it shows lips.

  The mesh takes an upside down face for an upright one whose mouth is hidden.
  """
  turns = np.exp(1j * np.radians(roll))
  middle = np.median(turns.real) + 1j * np.median(turns.imag)
  tilt = round(float(np.degrees(np.angle(middle))), 1)
  if hidden < _OFTEN:
    return tilt
  frames = np.flatnonzero(tracked.measured)
  chosen = frames[np.linspace(0, len(frames) - 1, _NUM_TURNED).astype(int)]
  tracker, shown = detector.Tracker(), 0
  for _, image in tracked.pictures(chosen):
    turned = np.ascontiguousarray(image[::-1, ::-1])
    points, presence = tracker.landmarks(turned)
    shown += bool(presence) and sight.measure(turned, points)[0] > MOUTH
  return 180.0 if shown > len(chosen) / 2 else tilt


def spans(
  marked: Bool[np.ndarray, "t"], times: Float[np.ndarray, "t"]
) -> list[list[float]]:
  """Returns [first, last] second of each run of marked frames.

  Short gaps belong to it.

  Args:
    marked: frames.
    times: of them.
  """
  runs: list[list[float]] = []
  for time in np.asarray(times, np.float64)[marked]:
    if runs and time - runs[-1][1] <= _LONGEST_GAP:
      runs[-1][1] = time
    else:
      runs.append([time, time])
  return [[round(a, 2), round(b, 2)] for a, b in runs]
