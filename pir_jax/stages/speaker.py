"""A trained expression network in use, on whole speech or piece by piece.

n audio samples, t frames, w of a window, s of a piece, d feature channels, i
identity and e expression coefficients.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from pir_jax.stages import speech, speech_stream
from pir_jax.types import (
  FRAME_RATE,
  SAMPLE_RATE,
  AnyArray,
  ConfigError,
  ExpressionStats,
)

HOP = SAMPLE_RATE // FRAME_RATE  # samples of a frame.
# Frames that are encoded at once where speech is still coming: 100 cost twice
# as much and follow hardly better.
LIVE_WINDOW = 50
LIVE_STEP = 2  # Frames that are predicted, and inpainted, at once.


class Speaker:
  """Programs that are ready to run, and how to feed them with speech.

  Attributes:
    window: frames of speech that are encoded at once.
    margin: half of the overlap of windows.
    context: frames that the decoder remembers; None: all of them.
    relative: whether it needs the person's statistics.
  """

  def __init__(
    self,
    encode: Callable[..., Float[Array, "1 w d"]],
    start: Callable[..., Any],
    extend: Callable[..., tuple[Any, Float[Array, "1 s e"]]],
    *,
    window: int,
    margin: int,
    context: int | None,
    relative: bool,
  ):
    """Joins programs of one network.

    Args:
      encode: (sound of a window, samples of it that are sound) -> features.
      start: (identity, num_frames=) -> the decoder's state before any frame,
        see `ExpressionDecoder.start`.
      extend: (state, features of some frames, statistics of the person) ->
        state, their raw expressions.
      window: see Attributes.
      margin: see Attributes.
      context: see Attributes.
      relative: see Attributes.
    """
    self._encode, self._start, self._extend = encode, start, extend
    self.window, self.margin = window, margin
    self.context, self.relative = context, relative

  @property
  def stride(self) -> int:
    """Frames of a piece of whole speech."""
    return self.window - 2 * self.margin

  def predict(
    self,
    waveform: Float[AnyArray, "n"],
    identity: Float[AnyArray, "i"],
    stats: ExpressionStats | None = None,
  ) -> Float[np.ndarray, "t e"]:
    """Predicts raw expressions for speech of t = ceil(n / 640) frames.

    The encoder takes overlapping windows, which are crossfaded; the decoder
    runs through them once and carries its cache along. So time grows with the
    length, and memory only by the result; without a context in the decoder's
    Config, also by the cache of all frames.

    Args:
      waveform: normalised speech.
      identity: of the face.
      stats: of the person; only a `relative` network needs them.

    Raises:
      ValueError: the waveform is empty, or the statistics are missing.
    """
    if not len(waveform):
      raise ValueError("the waveform is empty: pass at least one sample.")
    stats = self._checked(stats)
    num_frames = math.ceil(len(waveform) / HOP)
    # Pieces of one length are one compiled program; what is over is cut off.
    padded = math.ceil(num_frames / self.stride) * self.stride
    # Without a context all frames are cached.
    cached = None if self.context else padded
    carry = self._start(np.asarray(identity)[None], num_frames=cached)
    pieces = speech.features(
      self._encode,
      np.asarray(waveform),
      num_frames=num_frames,
      window=self.window,
      margin=self.margin,
      hop=HOP,
    )
    parts = []
    for features in pieces:
      carry, part = self._extend(carry, features, stats)
      parts.append(np.asarray(part[0]))
    return np.concatenate(parts)[:num_frames]

  def stream(
    self,
    identity: Float[AnyArray, "i"],
    stats: ExpressionStats | None = None,
    *,
    look_ahead: int,
    step: int,
    window: int | None = None,
  ) -> speech_stream.SpeechStream:
    """Begins to predict raw expressions while the speech comes.

    The arguments are those of `predict` and `speech_stream.SpeechStream`; by
    default windows are of LIVE_WINDOW frames.

    Raises:
      ConfigError: the decoder's memory has no bound.
    """
    if not self.context:
      raise ConfigError(
        "a decoder that remembers all frames cannot go on for ever: train with "
        "--config.stage.model.context=100."
      )
    stats = self._checked(stats)
    return speech_stream.SpeechStream(
      self._encode,
      lambda carry, features: self._extend(carry, features, stats),
      self._start(np.asarray(identity)[None], num_frames=None),
      window=window or max(LIVE_WINDOW, look_ahead + step),
      look_ahead=look_ahead,
      step=step,
      hop=HOP,
    )

  def _checked(self, stats):
    if self.relative and stats is None:
      raise ValueError("stats=None: a relative network needs the person's")
    return stats if self.relative else None
