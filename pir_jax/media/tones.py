"""Separates music from speech by its steady tones.

A voice hardly keeps a pitch for a fifth of a second; instruments do.
n audio samples, b frames of them, f frequencies.
"""

import numpy as np
from jaxtyping import Float

from pir_jax.types import SAMPLE_RATE

MUSIC = 0.3  # Share of steady tones: chords 0.4 to 0.9, voices below 0.2.
_SIZE, _HOP = 2048, 512  # Samples of a spectrum, and between two.
_BAND = slice(8, 640)  # 62 to 5000 Hz.
_FRAMES = 6  # In which a tone stays in its place: 0.19 s.
_LEAST = 0.1  # Of the largest amplitude of a spectrum.
_QUIET = 25.0  # dB below the loudest spectra, where there is none to judge.
_PIECE, _MOST_PIECES = 5 * SAMPLE_RATE, 12  # Of long recordings.


def steady_share(waveform: Float[np.ndarray, "n"]) -> float | None:
  """Measures the share of the power that lies in tones which keep their pitch.

  Args:
    waveform: mono at SAMPLE_RATE; of a long one pieces are taken.

  Returns:
    From 0 to 1, the mean over all but quiet moments; None for less than half a
    second.
  """
  if len(waveform) < SAMPLE_RATE // 2:
    return None
  count = min(_MOST_PIECES, -(-len(waveform) // _PIECE))
  starts = np.linspace(0, max(0, len(waveform) - _PIECE), count).astype(int)
  power, steady = (
    np.concatenate(parts)
    for parts in zip(
      *(_tones(waveform[i : i + _PIECE]) for i in starts), strict=True
    )
  )
  loud = power > np.percentile(power, 95) * 10 ** (-_QUIET / 10)
  return float(np.mean(steady[loud] / power[loud])) if loud.any() else 0.0


def _tones(
  waveform: Float[np.ndarray, "n"],
) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
  """Returns the power of each spectrum, and that of its steady tones."""
  frames = np.lib.stride_tricks.sliding_window_view(waveform, _SIZE)[::_HOP]
  window = np.hanning(_SIZE).astype(np.float32)
  amplitude = np.abs(np.fft.rfft(frames * window, axis=1))[:, _BAND]
  peak = np.zeros(amplitude.shape, bool)
  middle = amplitude[:, 1:-1]
  peak[:, 1:-1] = middle >= np.maximum(amplitude[:, :-2], amplitude[:, 2:])
  peak &= amplitude > _LEAST * amplitude.max(1, keepdims=True)
  lasting = np.zeros(amplitude.shape, np.int32)
  before = np.zeros(amplitude.shape[1], np.int32)
  for row, here in zip(lasting, peak, strict=True):
    row[:] = before = np.where(here, before + 1, 0)
  power = amplitude**2
  # Of a peak and its two neighbours, into which the window spreads it.
  spread = power.copy()
  spread[:, 1:] += power[:, :-1]
  spread[:, :-1] += power[:, 1:]
  steady = np.sum(spread * (lasting >= _FRAMES), 1)
  total = np.sum(power, 1)
  return total, np.minimum(steady, total)
