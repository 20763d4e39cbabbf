"""How loud a recording is, how quiet its pauses are, and whether it clips.

n audio samples, b blocks.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy import signal

from pir_jax.types import SAMPLE_RATE

QUIETEST = -100.0  # dB of full scale: digital silence is called no less.
_BLOCK = 0.4  # Seconds; ITU-R BS.1770's, three quarters overlapped.
_FRAME = 0.05  # Seconds, of the levels from which pauses are told.
_PEAK_SHARE = 0.98


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
  """Levels of a recording, mono at SAMPLE_RATE."""
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
  waveform: Float[np.ndarray, "n"], seconds: float = _FRAME
) -> Float[np.ndarray, "b"]:
  """Level of each frame in dB of full scale, QUIETEST at the least."""
  size = round(seconds * SAMPLE_RATE)
  count = len(waveform) // size
  frames = waveform[: count * size].reshape(count, size)
  # Not squared in one piece: hours of speech are not copied.
  power = np.einsum("bn,bn->b", frames, frames).astype(np.float64) / size
  return 10 * np.log10(np.maximum(power, 10 ** (QUIETEST / 10)))


def integrated(waveform: Float[np.ndarray, "n"]) -> float | None:
  """Integrated loudness in LUFS: K-weighted, gated at -70 LUFS and -10 LU.

  None for less than one block, and where all is quieter than the gate.
  """
  hop = round(_BLOCK / 4 * SAMPLE_RATE)
  if len(waveform) < 4 * hop:
    return None
  power = _powers(waveform, hop)
  # A block is four hops.
  block = np.convolve(power, np.full(4, 0.25), mode="valid")
  block = block[block > 10 ** ((-70 + 0.691) / 10)]
  if not len(block):
    return None
  block = block[block > block.mean() / 10]
  return float(10 * np.log10(block.mean()) - 0.691)


def _powers(
  waveform: Float[np.ndarray, "n"], hop: int
) -> Float[np.ndarray, "b"]:
  """K-weighted mean square of every whole hop, a minute at a time."""
  filters = _k_weighting(SAMPLE_RATE)
  state = np.zeros((len(filters), 2))
  stop = len(waveform) // hop * hop
  powers = []
  for start in range(0, stop, 600 * hop):
    part = waveform[start : min(start + 600 * hop, stop)]
    part, state = signal.sosfilt(filters, part, zi=state)
    part = part.reshape(-1, hop)
    powers.append(np.einsum("bn,bn->b", part, part) / hop)
  return np.concatenate(powers)


def _k_weighting(rate: int) -> Float[np.ndarray, "2 6"]:
  """Shelf and high pass of BS.1770 at any rate, from its analogue form."""

  def biquad(frequency, quality, numerator):
    k = np.tan(np.pi * frequency / rate)
    scale = 1 + k / quality + k * k
    b = np.array(numerator(k, quality))
    a = [scale, 2 * (k * k - 1), 1 - k / quality + k * k]
    return b, np.array(a) / scale, scale

  gain = 10 ** (3.999843853973347 / 20)
  half = gain**0.4996667741545416

  def shelf(k, q):
    return (
      gain + half * k / q + k * k,
      2 * (k * k - gain),
      gain - half * k / q + k * k,
    )

  b, a, scale = biquad(1681.974450955533, 0.7071752369554196, shelf)
  first = np.concatenate([b / scale, a])
  # Its numerator is given as 1, -2, 1, not scaled.
  b, a, _ = biquad(
    38.13547087602444, 0.5003270373238773, lambda k, q: (1.0, -2.0, 1.0)
  )
  return np.stack([first, np.concatenate([b, a])])
