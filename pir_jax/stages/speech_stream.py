"""Speech that comes piece by piece: expressions with a bounded look-ahead.

n audio samples, t frames, d feature channels, e expression coefficients.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

# Speech is taken to be as loud as this until some has come, as if a second of
# it had gone before: -26 dB of full scale. Ours.
_USUAL = 0.05


class SpeechStream:
  """Predicts the expressions of one utterance while it comes.

  The encoder sees the newest window of sound, at whose end lie the frames that
  are asked for and, after them, the look-ahead. The
  decoder goes on with its own state. Sound is normalised by what came so far.

  Attributes:
    num_frames: predicted so far.
  """

  num_frames = 0

  def __init__(
    self,
    encode: Callable[..., Float[Array, "1 w d"]],
    extend: Callable[[Any, Any], tuple[Any, Float[Array, "1 s e"]]],
    carry: Any,
    *,
    window: int,
    look_ahead: int,
    step: int,
    hop: int,
  ):
    """Begins an utterance.

    Args:
      encode: (sound of a window, samples of it that are sound) -> features.
      extend: (state, features of some frames) -> state, their expressions.
      carry: the decoder's state before the first frame.
      window: frames that are encoded at once.
      look_ahead: frames of sound after a frame that it waits for.
      step: frames predicted at once.
      hop: samples of a frame.

    Raises:
      ValueError: the window has no room for a step and its look-ahead.
    """
    if step < 1 or look_ahead < 0 or step + look_ahead > window:
      raise ValueError(
        f"step={step} and look_ahead={look_ahead} do not fit a window of "
        f"{window} frames."
      )
    self._encode, self._extend, self._carry = encode, extend, carry
    self._window, self._ahead, self._step = window, look_ahead, step
    self._hop = hop
    self._held = np.zeros(0, np.float32)  # From the frame `_first` on.
    self._first = self._received = 0
    self._level = _Level(second=25 * hop)

  def push(self, waveform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "t e"]:
    """Takes some sound and returns the expressions that it makes possible."""
    self._held = np.concatenate([self._held, np.float32(waveform)])
    self._received += len(waveform)
    results = []
    while self._received >= self._hop * (
      self.num_frames + self._step + self._ahead
    ):
      results.append(self._next())
    return _joined(results)

  def finish(self) -> Float[np.ndarray, "t e"]:
    """Returns the rest, as if silence followed: to the last begun frame."""
    total = math.ceil(self._received / self._hop)
    results, missing = [], total - self.num_frames
    while self.num_frames < total:
      results.append(self._next())
    return _joined(results)[:missing]

  def _next(self) -> Float[np.ndarray, "s e"]:
    begin, hop = self.num_frames, self._hop
    stop = begin + self._step + self._ahead
    start = max(0, stop - self._window)
    self._held = self._held[(start - self._first) * hop :]
    self._first = start
    sound = self._held[: (stop - start) * hop]
    # Not of all that was received: chunks of any size give the same.
    self._level.add(sound[max(0, self._level.count - start * hop) :])
    sound = self._level.normalise(sound)
    length = math.ceil(len(sound) / hop) * hop
    sound = np.pad(sound, (0, self._window * hop - len(sound)))
    features = np.asarray(self._encode(sound[None], np.int32([length])))
    part = features[:, begin - start :][:, : self._step]
    self._carry, out = self._extend(self._carry, part)
    self.num_frames += self._step
    return np.asarray(out[0])


class _Level:
  """Mean and power of what came so far."""

  def __init__(self, second: int):
    self._second = second  # In samples.
    self.count, self._sum, self._squares = 0, 0.0, 0.0

  def add(self, sound: Float[np.ndarray, "n"]) -> None:
    self.count += len(sound)
    self._sum += float(np.sum(sound, dtype=np.float64))
    self._squares += float(np.sum(np.square(sound, dtype=np.float64)))

  def normalise(self, sound: Float[np.ndarray, "n"]) -> np.ndarray:
    mean = self._sum / max(self.count, 1)
    power = max(self._squares - self.count * mean**2, 0.0)
    usual = self._second * _USUAL**2
    variance = (power + usual) / (self.count + self._second)
    return (sound - np.float32(mean)) / np.float32(math.sqrt(variance))


def _joined(parts) -> Float[np.ndarray, "t e"]:
  return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
