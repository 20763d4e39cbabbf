"""Stage 1: speech and identity -> expression.

The loss is the mean square of standardised coefficients, like FaceFormer's on
vertices; the paper's own is not known. Waveforms are levelled: zero mean and
unit variance over the whole utterance.
b batch, n audio samples, t frames, d feature channels, i identity and e
expression coefficients, p coordinates of lip points.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.losses import sequences
from pir_jax.models import faceformer
from pir_jax.ops import audio_noise, interpolation
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import base, precision
from pir_jax.types import (
  FRAME_RATE,
  SAMPLE_RATE,
  AnyArray,
  FaceSpace,
  SpeechBatch,
)

HOP = SAMPLE_RATE // FRAME_RATE  # samples of a frame.
MODES = ("autoregressive", "teacher_forced")
ENCODERS = ("wav2vec2", "whisper")
# Whisper heard recordings, not unit variance: speech at about -20 dB.
WHISPER_LEVEL = 0.1


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term counts for; the paper leaves them open.

  Attributes:
    expression: mean square error of standardised coefficients.
    velocity: the same of their change from frame to frame.
    lips: mean square distance of the lip points they move, as a share of what
      one deviation of every coefficient gives.
  """

  expression: float = 1.0
  velocity: float = 0.0
  lips: float = 0.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 1; the defaults are the paper's sizes.

  Attributes:
    model: of the decoder; its sizes of audio, identity and expression are
      overwritten by what the encoder and the data have, its dtype and remat by
      ours.
    optim: FaceFormer's: Adam, constant rate.
    weights: of the losses.
    mode: in training, "autoregressive" feeds predictions back (FaceFormer) and
      "teacher_forced" the true frames; the use is always autoregressive.
    encoder: "wav2vec2", fine-tuned but for its convolutions, or "whisper",
      frozen.
    encoder_path: folder or Hugging Face name (wav2vec2), or file (whisper);
      "" takes the pinned asset, where there is one.
    reach: frames at either side whose features are stacked to a frame's own: a
      frozen encoder cannot learn to bring their context along.
    tap: layers of Whisper after which its features are taken; 0: all.
    gain: the waveform is scaled by up to this many decibels, either way.
    noise: white noise of this share of the waveform's own deviation.
    window: frames encoded at once in `predict`.
    margin: half of what neighbouring windows share, where they are crossfaded.
    ema_decay: of the averaged parameters, which are the ones used; 0 uses the
      trained ones themselves.
    accumulate: equal parts of a batch, done in turn; see `base.accumulate`.
    dtype: of the networks' activations; see `activations`, as for
    remat: what the gradient computes again.
  """

  model: faceformer.Config = dataclasses.field(
    default_factory=lambda: faceformer.Config(context=100)
  )
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(learning_rate=1e-4)
  )
  weights: Weights = dataclasses.field(default_factory=Weights)
  mode: str = "autoregressive"
  encoder: str = "wav2vec2"
  encoder_path: str = "facebook/wav2vec2-large-960h-lv60-self"
  reach: int = 0
  tap: int = 0
  gain: float = 0.0
  noise: float = 0.0
  window: int = 100
  margin: int = 15
  ema_decay: float = 0.0
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class Expression(base.Stage):
  """The expression decoder, and its speech encoder, against the face fits."""

  name = "expression"

  def __init__(
    self,
    config: Config,
    space: FaceSpace,
    encoder: nnx.Module,
    *,
    num_steps: int,
    mesh: Mesh,
    lip_basis: Float[AnyArray, "e p"] | None = None,
  ):
    if config.encoder not in ENCODERS:
      raise ValueError(f"encoder={config.encoder!r} must be one of {ENCODERS}")
    if config.mode not in MODES:
      raise ValueError(f"mode={config.mode!r} must be one of {MODES}")
    if not 0 <= 2 * config.margin < config.window:
      raise ValueError(
        f"margin={config.margin} must be below half of window={config.window}"
      )
    if config.weights.lips and lip_basis is None:
      raise ValueError(
        f"weights.lips={config.weights.lips} needs a lip_basis: what each "
        "coefficient moves the lip points by"
      )
    self.config = config
    self.space = space
    self._lips = None
    if lip_basis is not None:
      moved = lip_basis * np.asarray(space.expression_scale)[:, None]
      self._lips = moved / np.sqrt(np.sum(np.square(moved)))
    fields = precision.fields(config.dtype, config.remat)
    model = dataclasses.replace(
      config.model,
      **fields,
      audio_size=encoder.config.width * (2 * config.reach + 1),
      identity_size=space.identity_size,
      expression_size=space.expression_size,
    )
    self.decoder = base.Network(
      lambda rngs: faceformer.ExpressionDecoder(model, rngs=rngs)
    )
    self.tuned = config.encoder == "wav2vec2"
    if not self.tuned:  # Nothing of a frozen one is kept for a gradient.
      del fields["remat"]
    self.encoder, self._published = base.Network.of(encoder, **fields)
    super().__init__(mesh, {} if self.tuned else {"encoder": self._published})
    self._optimizer = optim_lib.build(config.optim, num_steps)
    self._train = self.compile_step(self._train_phase)
    self._evaluate = jax.jit(self._evaluate_phase)
    self._encode_window = jax.jit(self._encode_phase)
    self._start = jax.jit(self._start_phase, static_argnames="num_frames")
    self._extend = jax.jit(self._extend_phase, donate_argnums=1)

  def init_state(self, key: Key[Array, ""]) -> base.TrainState:
    """A fresh decoder; a tuned encoder's parameters are put in by `init`."""
    nets = {"decoder": base.new_net(self.decoder, key, self._optimizer)}
    if self.tuned:
      params, buffers = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), self._published
      )
      nets["encoder"] = base.NetState(
        params, buffers, self._optimizer.init(params)
      )
    ema = {}
    if self.config.ema_decay:
      ema = {name: net.params for name, net in nets.items()}
    return base.TrainState(jnp.int32(0), nets, ema)

  def init(self, key: Key[Array, ""]) -> base.TrainState:
    """A fresh decoder around the published encoder."""
    state = super().init(key)
    if not self.tuned:
      return state
    # Not in `init_state`, which is compiled: these would be 1.2 GB constants.
    place = self.shardings().nets["encoder"]
    params, buffers = jax.device_put(
      self._published, (place.params, place.buffers), may_alias=False
    )
    net = state.nets["encoder"]._replace(params=params, buffers=buffers)
    ema = dict(state.ema)
    if ema:  # A copy: the first step gives its input's memory away.
      ema["encoder"] = jax.tree.map(jnp.copy, params)
    return state._replace(nets={**state.nets, "encoder": net}, ema=ema)

  def step(
    self,
    state: base.TrainState,
    batch: SpeechBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[base.TrainState, base.Metrics]:
    """One step of all that is trained."""
    return self._train(state, batch, prng.at_step(key, index))

  def evaluate(
    self, state: base.TrainState, batch: SpeechBatch, key: Key[Array, ""]
  ) -> base.Metrics:
    """The terms when predictions are fed back, whatever the training mode.

    `of_mean` is the error of always saying the mean expression: what
    `expression` must fall below to be of use.
    """
    del key
    return self._evaluate(state, self.frozen, batch)

  def predict(
    self,
    state: base.TrainState,
    waveform: Float[AnyArray, "n"],
    identity: Float[AnyArray, "i"],
  ) -> Float[np.ndarray, "t e"]:
    """Raw expressions for speech of any length, t = ceil(n / 640) frames.

    The encoder sees windows that overlap, crossfaded where they do; the decoder
    goes through them once and carries what it remembers along. So time grows
    with the length, and memory only by the result; without a context in the
    decoder's Config, by all frames that it then remembers.

    Args:
      state: of a trained run.
      waveform: levelled speech.
      identity: whose face.

    Raises:
      ValueError: the waveform is empty.
    """
    if not len(waveform):
      raise ValueError("the waveform is empty: give at least one sample")
    num_frames = math.ceil(len(waveform) / HOP)
    carry = self._start(
      state,
      jnp.asarray(identity)[None],
      # Without a context all frames are remembered.
      num_frames=None if self.config.model.context else num_frames,
    )
    # Not a list of pieces: thousands of them would outweigh what they hold.
    out = np.empty((num_frames, self.space.expression_size), np.float32)
    done = 0
    for features in self._features(state, np.asarray(waveform), num_frames):
      carry, part = self._extend(state, carry, features[:, : num_frames - done])
      out[done : done + part.shape[1]] = part[0]
      done += part.shape[1]
    return np.asarray(self.space.restore(out))

  def _features(
    self, state: base.TrainState, waveform: Float[np.ndarray, "n"], total: int
  ) -> Iterator[Float[Array, "1 t d"]]:
    """Features of `total` frames and a little more, piece by piece."""
    window, overlap = self.config.window, 2 * self.config.margin
    stride = window - overlap
    num_windows = 1 + max(0, math.ceil((total - window) / stride))
    end = None
    for i in range(num_windows):
      sound = waveform[i * stride * HOP :][: window * HOP]
      length = math.ceil(len(sound) / HOP) * HOP
      sound = np.pad(sound, (0, window * HOP - len(sound)))
      part = self._encode_window(
        state, self.frozen, sound[None], np.int32([length])
      )
      if end is not None:
        part = interpolation.crossfade(end, part)
      end = part[:, stride:]
      yield part[:, :stride]
      if i * stride + stride >= total:
        return
    yield end

  def _train_phase(self, state, frozen, batch, key):
    def gradients(batch, key):
      def objective(params):
        terms = self._terms(
          params, _buffers(state), frozen, batch, key, self.config.mode
        )
        return base.total(terms, dataclasses.asdict(self.config.weights))

      params = {name: net.params for name, net in state.nets.items()}
      return jax.grad(objective, has_aux=True)(params)

    found, metrics = base.accumulate(
      gradients, batch, key, self.config.accumulate
    )
    optimizers = dict.fromkeys(found, self._optimizer)
    nets, told = base.update_all(state.nets, found, optimizers)
    return base.advance(state, nets, self.config.ema_decay), metrics | told

  def _evaluate_phase(self, state, frozen, batch):
    terms = self._terms(
      _used(state), _buffers(state), frozen, batch, None, "autoregressive"
    )
    metrics = base.total(terms, dataclasses.asdict(self.config.weights))[1]
    target = self.space.standardise(batch.expression)
    of_mean = sequences.squared_error(
      target, jnp.zeros_like(target), batch.valid
    )
    return {**metrics, "of_mean": jnp.mean(of_mean)}

  def _encode_phase(self, state, frozen, waveform, lengths):
    return self._encode(
      _used(state),
      _buffers(state),
      frozen,
      waveform,
      self.config.window,
      lengths,
    )

  def _start_phase(self, state, identity, *, num_frames):
    return self._bound_decoder(state).start(identity, num_frames=num_frames)

  def _extend_phase(self, state, carry, features):
    return self._bound_decoder(state).extend(carry, features)

  def _bound_decoder(self, state):
    return self.decoder.bind(
      _used(state)["decoder"], state.nets["decoder"].buffers
    )

  def _terms(
    self,
    params: PyTree,
    buffers: PyTree,
    frozen: PyTree,
    batch: SpeechBatch,
    key: Key[Array, ""] | None,
    mode: str,
  ) -> dict[str, Float[Array, "b"]]:
    num_frames = batch.valid.shape[1]
    noise_key = encoder_key = decoder_key = None
    waveform = batch.waveform
    if key is not None:
      noise_key, encoder_key, decoder_key = jax.random.split(key, 3)
      waveform = audio_noise.disturb(
        noise_key, waveform, gain=self.config.gain, noise=self.config.noise
      )
    # What follows the last frame of use is padding, of no use either.
    index = jnp.arange(1, num_frames + 1)
    used = jnp.max(jnp.where(batch.valid > 0, index, 1), axis=1)
    features = self._encode(
      params, buffers, frozen, waveform, num_frames, used * HOP, encoder_key
    )
    decoder = self.decoder.bind(params["decoder"], buffers["decoder"])
    target = self.space.standardise(batch.expression)
    # A frame without a face is fed back as the mean, not as whatever it holds.
    target = jnp.where(batch.valid[..., None] > 0, target, 0.0)
    if mode == "teacher_forced":
      out = decoder.teacher_forced(
        features, batch.identity, target, key=decoder_key
      )
    else:
      out = decoder.generate(features, batch.identity, key=decoder_key)
    both = batch.valid[:, 1:] * batch.valid[:, :-1]
    change = jnp.diff(out, axis=1), jnp.diff(target, axis=1)
    terms = {
      "expression": sequences.squared_error(out, target, batch.valid),
      "velocity": sequences.squared_error(*change, both),
    }
    if self._lips is not None:
      # A mean over coordinates, and the weight is of their sum.
      lips = (x @ self._lips for x in (out, target))
      error = sequences.squared_error(*lips, batch.valid)
      terms["lips"] = error * self._lips.shape[1]
    return terms

  def _encode(
    self, params, buffers, frozen, waveform, num_frames, lengths, key=None
  ):
    """Speech features; no gradient into a frozen encoder."""
    options = {"lengths": lengths, "key": key}
    if self.tuned:
      encoder = self.encoder.bind(params["encoder"], buffers["encoder"])
      features = encoder(waveform, num_frames, **options)
    else:
      encoder = self.encoder.bind(*frozen["encoder"])
      features = encoder(waveform * WHISPER_LEVEL, num_frames, **options)
      features = jax.lax.stop_gradient(features)
    return interpolation.stack_neighbours(features, self.config.reach)


def _used(state):
  """The parameters that are used: averaged ones where they are kept."""
  return {name: net.params for name, net in state.nets.items()} | state.ema


def _buffers(state):
  return {name: net.buffers for name, net in state.nets.items()}
