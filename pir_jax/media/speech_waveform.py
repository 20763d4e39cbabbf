"""Checks and normalises the waveform of speech.

n audio samples.
"""

import math

import numpy as np
from jaxtyping import Float

from pir_jax.media import loudness
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

_QUIETEST = 1e-5  # Less than the last bit of 16: not worth amplifying.
_QUIETEST_SPEECH = -66.0  # dB of full scale: 16 bits have 96.
_LEAST_SPEECH = 4  # Frames of 50 ms as loud as that: a click is no speech.
_SHORTEST_SPEECH = SAMPLE_RATE // FRAME_RATE  # Samples of one video frame.


def check(waveform: Float[np.ndarray, "n"], *, silence: bool = False) -> bool:
  """Checks that a waveform can drive a face.

  Args:
    waveform: from `video_reader.read_audio`.
    silence: whether it may be silent throughout.

  Returns:
    Whether it is audible.

  Raises:
    InputError: it is empty, shorter than a video frame, silent or not finite.
  """
  if not len(waveform):
    raise InputError("the sound is empty: use a file with speech.")
  # Not of the absolute values: hours of speech are not copied.
  low, high = float(waveform.min()), float(waveform.max())
  if not np.isfinite(low) or not np.isfinite(high):
    raise InputError(
      "the sound has samples that are not finite: export it again."
    )
  if len(waveform) < _SHORTEST_SPEECH:
    raise InputError(
      f"the sound lasts {1000 * len(waveform) / SAMPLE_RATE:.0f} ms, less than"
      " one video frame: use a file with speech."
    )
  # Not by the peak, which an offset or a click reaches too.
  seconds = min(loudness.FRAME, len(waveform) / SAMPLE_RATE)
  levels = loudness.frame_levels(waveform, seconds)
  levels = np.sort(levels)[::-1][:_LEAST_SPEECH]
  audible = bool(len(levels) and levels[-1] >= _QUIETEST_SPEECH)
  if not (audible or silence):
    raise InputError(
      "the sound is silent: use a file with speech louder than "
      f"{_QUIETEST_SPEECH:.0f} dB."
    )
  return audible


def normalize(waveform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
  """Scales to zero mean and unit variance over the whole, as wav2vec 2.0.

  Over a whole utterance and not over each window, which would amplify a window
  that holds a pause alone.
  """
  # Python floats, or hours of speech would turn into float64.
  normalized = waveform - float(np.mean(waveform, dtype=np.float64))
  variance = float(np.mean(np.square(normalized), dtype=np.float64))
  normalized /= max(math.sqrt(variance), _QUIETEST)
  return normalized
