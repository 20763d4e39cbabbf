"""How the lips of a video follow what is predicted of the speech.

t frames, s ticks of speech, e expression coefficients.
"""

import numpy as np
from jaxtyping import Float

from pir_jax.face import morphable
from pir_jax.metrics import lips
from pir_jax.preparation import tracking
from pir_jax.types import FRAME_RATE

LAGS = np.arange(-40, 41) / 100  # Seconds by which a video may be late.


def follow(
  opening: Float[np.ndarray, "t"],
  fps: float,
  predicted: Float[np.ndarray, "s"],
) -> tuple[float, float]:
  """Measures how lips follow predicted ones, and how late.

  Args:
    opening: of the lips in a video; NaN where they were not seen.
    fps: its frames a second.
    predicted: opening at FRAME_RATE.

  Returns:
    The highest correlation, and the seconds by which the video is late at it;
    NaN of both where too little was seen.
  """
  times = np.arange(len(opening)) / fps
  ticks = np.arange(len(predicted)) / FRAME_RATE
  if np.isfinite(opening).sum() < 2 or len(predicted) < 2:
    return float("nan"), float("nan")
  correlations = [
    lips.correlation(
      opening,
      np.interp(times - lag, ticks, predicted, left=np.nan, right=np.nan),
    )
    for lag in LAGS
  ]
  best = int(np.argmax(correlations))
  return correlations[best], float(LAGS[best])


def predicted_opening(
  tracked: tracking.TrackedVideo, expression: Float[np.ndarray, "s e"]
) -> Float[np.ndarray, "s"]:
  """Returns how far a person's lips are open by expressions, head units."""
  identity = np.tile(tracked.track.identity, (len(expression), 1))
  points = morphable.landmarks(
    tracked.model, np.float32(identity), np.float32(expression)
  )
  return lips.opening(np.asarray(points))
