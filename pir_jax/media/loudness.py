"""Measures how loud a recording is, its pauses, and whether it clips.

n audio samples, b frames of them.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from pir_jax.types import SAMPLE_RATE

QUIETEST = -100.0  # dB of full scale, also of digital silence.
_BLOCK = 0.4  # Seconds; ITU-R BS.1770's.
FRAME = 0.05  # Seconds; pauses are sought among the levels of such frames.
_PEAK_SHARE = 0.98
_PART = 4096  # Frames measured together.


@dataclasses.dataclass(kw_only=True, slots=True)
class Levels:
  """A recording's levels; None where there is none to measure.

  Attributes:
    loudness: integrated, LUFS (ITU-R BS.1770-4 of one channel).
    noise: dB of full scale: a tenth of its 50 ms frames are quieter.
    speech: dB of full scale: a tenth of its 50 ms frames are louder.
    clipped: share of the samples within 2 % of the largest one; speech is
      there for a sample in ten thousand, cut tops for one in a hundred.
    silence: share of the time more than 25 dB below `speech`.
  """

  loudness: float | None
  noise: float | None
  speech: float | None
  clipped: float | None
  silence: float | None


def measure(waveform: Float[np.ndarray, "n"]) -> Levels:
  """Measures a recording, mono at SAMPLE_RATE."""
  frames = frame_levels(waveform)
  if not len(frames):
    return Levels(
      loudness=None, noise=None, speech=None, clipped=None, silence=None
    )
  noise, speech = (float(v) for v in np.percentile(frames, (10, 90)))
  peak = float(max(waveform.max(), -waveform.min()))
  at_peak = 0
  if peak > 1e-3:
    limit = _PEAK_SHARE * peak
    at_peak = np.count_nonzero(waveform >= limit)
    at_peak += np.count_nonzero(waveform <= -limit)
  return Levels(
    loudness=integrated(waveform),
    noise=noise,
    speech=speech,
    clipped=float(at_peak / len(waveform)),
    # Of a recording without any sound, all is silence.
    silence=float(np.mean(frames < max(speech - 25.0, -70.0))),
  )


def frame_levels(
  waveform: Float[np.ndarray, "n"], seconds: float = FRAME
) -> Float[np.ndarray, "b"]:
  """Computes the level of each frame in dB of full scale, from QUIETEST up.

  A constant offset is no sound and does not count.
  """
  size = round(seconds * SAMPLE_RATE)
  count = len(waveform) // size
  frames = waveform[: count * size].reshape(count, size)
  # In parts: hours of speech are not copied as doubles.
  parts = range(0, count, _PART)
  power = [np.var(frames[i : i + _PART], 1, np.float64) for i in parts]
  power = np.concatenate(power) if power else np.zeros(0)
  return 10 * np.log10(np.maximum(power, 10 ** (QUIETEST / 10)))


def integrated(waveform: Float[np.ndarray, "n"]) -> float | None:
  """Computes the loudness in LUFS: K-weighted and gated, see `Levels`.

  Returns None for less than one block of 0.4 s, and where all is quieter than
  the gate of -70 LUFS.
  """
  import pyloudnorm  # Here: with scipy's filters it takes as long as jax.

  if len(waveform) < _BLOCK * SAMPLE_RATE:
    return None
  # By this name it has BS.1770's own filters, for any sampling rate.
  meter = pyloudnorm.Meter(SAMPLE_RATE, filter_class="DeMan", block_size=_BLOCK)
  level = meter.integrated_loudness(waveform)
  return float(level) if np.isfinite(level) else None
