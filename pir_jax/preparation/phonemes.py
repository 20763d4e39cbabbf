"""Recognises the speech sounds of a recording and their times.

Two recognisers of pocketsphinx (BSD licence; models for English come with it)
look at the same sound: one for words, whose sounds are then aligned, and one
for free sounds, which need not make an English word. Each errs elsewhere;
together they find a shift in clips in which one of them does not. In other
languages than English they err more, and the shift is more often unknown.

p phones, n samples.
"""

import importlib.util
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pir_jax.types import SAMPLE_RATE, InputError

EXTRA = "pip install 'pir_jax[sync]'"
_FRAMES_A_SECOND = 100
# Narrower beams of the word search: three times as fast, the same shifts.
_FAST = {"maxhmmpf": 3000, "maxwpf": 10}
# Of longer speech, parts that are evenly spread: more adds nothing.
LONGEST = 32.0  # Seconds.
PART = 16.0


class Phones(NamedTuple):
  """Speech sounds, in no particular order.

  Attributes:
    names: ARPAbet without stress.
    middle: of each, seconds from the start of the sound.
  """

  names: tuple[str, ...]
  middle: Float[np.ndarray, "p"]


def available() -> bool:
  """Checks that the recogniser is installed: the extra `sync`."""
  return importlib.util.find_spec("pocketsphinx") is not None


def recognise(waveform: Float[np.ndarray, "n"]) -> Phones:
  """Recognises phones in at most LONGEST seconds of a recording.

  Args:
    waveform: mono at SAMPLE_RATE.

  Raises:
    InputError: the recogniser is not installed.
  """
  if not available():
    raise InputError(f"speech sounds need a recogniser: {EXTRA}.")
  names, middle = [], []
  for start, stop in _parts(len(waveform)):
    pcm = _pcm(waveform[start:stop])
    if not pcm:
      continue
    for name, begin, length in (*_words(pcm), *_sounds(pcm)):
      names.append(name)
      middle.append(
        start / SAMPLE_RATE + (begin + length / 2) / _FRAMES_A_SECOND
      )
  return Phones(tuple(names), np.array(middle, np.float64))


def _parts(num_samples: int) -> list[tuple[int, int]]:
  """Returns the parts to recognise, [start, stop) in samples."""
  if num_samples <= LONGEST * SAMPLE_RATE:
    return [(0, num_samples)]
  length = int(PART * SAMPLE_RATE)
  count = int(LONGEST / PART)
  starts = np.linspace(0, num_samples - length, count).astype(int)
  return [(int(start), int(start) + length) for start in starts]


def _pcm(waveform: Float[np.ndarray, "n"]) -> bytes:
  """Converts to 16-bit samples at an even level; nothing for silence."""
  peak = float(np.abs(waveform).max(initial=0.0))
  if peak < 1e-3:
    return b""
  return (waveform * (0.7 * 32767 / peak)).astype("<i2").tobytes()


def _words(pcm: bytes) -> list[tuple[str, int, int]]:
  """Returns name, start and frames of the sounds of recognised words."""
  decoder = _decoder(**_FAST)
  _decode(decoder, pcm)
  if decoder.hyp() is None or not decoder.hyp().hypstr:
    return []
  decoder.set_alignment()
  _decode(decoder, pcm)
  words = decoder.get_alignment()
  return [(s.name, s.start, s.duration) for word in words for s in word]


def _sounds(pcm: bytes) -> list[tuple[str, int, int]]:
  """Returns the same of sounds that need not make a word."""
  import pocketsphinx

  model = os.path.join(
    pocketsphinx.get_model_path("en-us"), "en-us-phone.lm.bin"
  )
  decoder = _decoder(lm=None, allphone=model, lw=2.0, beam=1e-20, pbeam=1e-20)
  _decode(decoder, pcm)
  if decoder.hyp() is None:
    return []
  return [
    (part.word, part.start_frame, part.end_frame - part.start_frame + 1)
    for part in decoder.seg()
  ]


def _decoder(**options):
  # Optional: most users of the package have no need of it.
  import pocketsphinx

  return pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", **options)


def _decode(decoder, pcm: bytes) -> None:
  decoder.start_utt()
  decoder.process_raw(pcm, full_utt=True)
  decoder.end_utt()
