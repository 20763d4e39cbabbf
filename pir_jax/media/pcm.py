"""Sound as bare samples that come piece by piece: from a pipe, at any rate.

n samples, c channels.
"""

import os
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import Float, Shaped

from pir_jax.types import InputError

_BYTES = 1 << 12  # Read at most at once: 0.13 s at 16 kHz.
_FULL_SCALE = 32768.0
RATES = (8000, 192_000)  # Least and largest, in Hz.


def read(descriptor: int) -> Iterator[Float[np.ndarray, "n"]]:
  """Yields mono samples in [-1, 1] of 16-bit little-endian PCM, as they come.

  Args:
    descriptor: of an open file, such as 0 for standard input. Bare, so that a
      thread that waits for it holds no lock.
  """
  rest = b""
  while piece := os.read(descriptor, _BYTES):
    piece = rest + piece
    whole = len(piece) // 2 * 2
    rest = piece[whole:]
    if whole:
      yield np.frombuffer(piece[:whole], "<i2").astype(np.float32) / _FULL_SCALE


def as_mono(chunk: Shaped[np.ndarray, "n *c"]) -> Float[np.ndarray, "n"]:
  """Returns samples of any usual kind as mono floats in about [-1, 1].

  Raises:
    InputError: they are no samples, or not finite.
  """
  chunk = np.asarray(chunk)
  if chunk.ndim not in (1, 2):
    raise InputError(
      f"a chunk of shape {chunk.shape} is no sound: give samples, or samples "
      "by channels."
    )
  if chunk.dtype.kind == "i":
    scale = float(np.iinfo(chunk.dtype).max) + 1
    chunk = chunk.astype(np.float32) / np.float32(scale)
  elif chunk.dtype.kind != "f":
    raise InputError(
      f"samples of {chunk.dtype} are no sound: give integers or floats."
    )
  chunk = np.float32(chunk.mean(1) if chunk.ndim == 2 else chunk)
  if not np.isfinite(chunk).all():
    raise InputError("the sound has samples that are not finite.")
  return chunk


def check_rate(sample_rate: int) -> None:
  """Raises InputError for what is no rate of sound."""
  if not RATES[0] <= sample_rate <= RATES[1]:
    raise InputError(
      f"sample_rate={sample_rate} must lie in {RATES[0]} to {RATES[1]} Hz."
    )


class Resampler:
  """Mono samples of one rate, piece by piece, to those of another."""

  def __init__(self, source_rate: int, target_rate: int):
    self._source_rate = source_rate
    self._resampler = None
    if source_rate != target_rate:
      self._resampler = av.AudioResampler("flt", "mono", target_rate)

  def push(self, samples: Float[np.ndarray, "n"]) -> Float[np.ndarray, "_"]:
    """Returns what these samples complete."""
    if self._resampler is None or not len(samples):
      return samples
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(samples[None], np.float32), "flt", "mono"
    )
    frame.sample_rate = self._source_rate
    return self._joined(frame)

  def finish(self) -> Float[np.ndarray, "_"]:
    """Returns the rest."""
    if self._resampler is None:
      return np.zeros(0, np.float32)
    return self._joined(None)

  def _joined(self, frame):
    parts = [x.to_ndarray()[0] for x in self._resampler.resample(frame)]
    return np.concatenate([np.zeros(0, np.float32), *parts])
