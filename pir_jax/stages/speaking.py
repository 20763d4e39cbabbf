"""A trained expression network in use, on whole speech or piece by piece.

n audio samples, t frames, i identity and e expression coefficients.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from pir_jax.stages import base, person_scale, speech, speech_stream
from pir_jax.stages.train_state import TrainState
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, AnyArray, ExpressionStats

HOP = SAMPLE_RATE // FRAME_RATE  # samples of a frame.


class Speaking(base.Stage):
  """The part of the expression stage that needs no training data.

  Whoever inherits has `config`, `space`, `decoder`, `_lips` and `_encode`.
  """

  def __init__(self, mesh: Mesh, frozen: PyTree):
    super().__init__(mesh, frozen)
    self._encode_window = self.jit(self._encode_phase)
    self._start = self.jit(self._start_phase, static_argnames="num_frames")
    self._extend = self.jit(self._extend_phase, donate_argnums=1)

  def predict(
    self,
    state: TrainState,
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
      state: of a trained run.
      waveform: normalised speech.
      identity: of the face.
      stats: of the person; only a `relative` network needs them.

    Raises:
      ValueError: the waveform is empty, or the statistics are missing.
    """
    if not len(waveform):
      raise ValueError("the waveform is empty: pass at least one sample.")
    who = self._who(stats)
    num_frames = math.ceil(len(waveform) / HOP)
    # Pieces of one length are one compiled program; what is over is cut off.
    stride = self.config.window - 2 * self.config.margin
    padded = math.ceil(num_frames / stride) * stride
    # Without a context all frames are cached.
    cached = None if self.config.model.context else padded
    carry = self._start(state, jnp.asarray(identity)[None], num_frames=cached)
    out = np.empty((padded, self.space.expression_size), np.float32)
    pieces = speech.features(
      functools.partial(self._encode_window, state, self.frozen),
      np.asarray(waveform),
      num_frames=num_frames,
      window=self.config.window,
      margin=self.config.margin,
      hop=HOP,
    )
    for start, features in zip(range(0, padded, stride), pieces, strict=True):
      carry, part = self._extend(state, carry, features)
      out[start : start + stride] = part[0]
    out = person_scale.from_relative(self.space, out[:num_frames], *who)
    return np.asarray(out)

  def stream(
    self,
    state: TrainState,
    identity: Float[AnyArray, "i"],
    stats: ExpressionStats | None = None,
    *,
    look_ahead: int,
    step: int,
  ) -> speech_stream.SpeechStream:
    """Begins to predict raw expressions while the speech comes.

    The arguments are those of `predict` and `speech_stream.SpeechStream`.
    """
    who = self._who(stats)

    def extend(carry, features):
      carry, part = self._extend(state, carry, features)
      return carry, person_scale.from_relative(self.space, part, *who)

    return speech_stream.SpeechStream(
      functools.partial(self._encode_window, state, self.frozen),
      extend,
      self._start(state, jnp.asarray(identity)[None], num_frames=None),
      window=self.config.window,
      look_ahead=look_ahead,
      step=step,
      hop=HOP,
    )

  def _who(self, stats):
    if self.config.relative and stats is None:
      raise ValueError("stats=None: a relative network needs the person's")
    return (stats if self.config.relative else None), self._lips

  def _encode_phase(self, state, frozen, waveform, lengths):
    nets = used(state), buffers(state)
    return self._encode(*nets, frozen, waveform, self.config.window, lengths)

  def _start_phase(self, state, identity, *, num_frames):
    return self._bound_decoder(state).start(identity, num_frames=num_frames)

  def _extend_phase(self, state, carry, features):
    return self._bound_decoder(state).extend(carry, features)

  def _bound_decoder(self, state):
    return self.decoder.bind(used(state)["decoder"], buffers(state)["decoder"])


def used(state):
  """Returns the averaged parameters where they are kept, else the trained."""
  return {name: net.params for name, net in state.nets.items()} | state.ema


def buffers(state):
  """Returns what is not trained."""
  return {name: net.buffers for name, net in state.nets.items()}
