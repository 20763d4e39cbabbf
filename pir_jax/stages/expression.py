"""Stage 1: speech and identity -> expression.

The loss is the mean square error of standardised coefficients, like
FaceFormer's on vertices; the paper's own is not known. Waveforms are
normalised: zero mean and unit variance over the whole utterance.
b batch, n audio samples, t frames, d feature channels, i identity and e
expression coefficients, p coordinates of lip points.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax import ranges
from pir_jax.losses import sequences
from pir_jax.models import faceformer
from pir_jax.ops import audio_noise, interpolation
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import (
  accumulation,
  base,
  person_scale,
  precision,
  speaker,
  train_state,
)
from pir_jax.stages.train_state import Metrics, TrainState
from pir_jax.types import (
  AnyArray,
  ConfigError,
  ExpressionStats,
  FaceSpace,
  SpeechBatch,
)

HOP = speaker.HOP  # Samples of a frame.
MODES = ("autoregressive", "teacher_forced")
ENCODERS = ("wav2vec2", "whisper")
# Whisper was trained on recordings, not unit variance: speech at about -20 dB.
WHISPER_LEVEL = 0.1


@ranges.declare()
@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """Weights of the loss terms; the paper gives none.

  Attributes:
    expression: mean square error of standardised coefficients.
    velocity: the same of their change from frame to frame.
    lips: mean square distance of the lip points, as a share of what one std of
      every coefficient moves them.
  """

  expression: float = 1.0
  velocity: float = 0.0
  lips: float = 0.0


@ranges.declare(margin=ranges.COUNT_OR_NONE, ema_decay=ranges.DECAY)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 1; the defaults are the paper's sizes.

  Attributes:
    model: of the decoder; its sizes of audio, identity and expression are
      overwritten by those of the encoder and the data, its dtype and remat by
      ours.
    optim: FaceFormer's: Adam, constant rate.
    weights: of the losses.
    mode: in training, "autoregressive" feeds predictions back (FaceFormer) and
      "teacher_forced" the target frames; inference is autoregressive.
    encoder: "wav2vec2", fine-tuned but for its convolutions, or "whisper",
      frozen.
    encoder_path: folder or Hugging Face name (wav2vec2), or file (whisper);
      "" takes the pinned asset, where there is one.
    context_frames: neighbours at either side whose features are stacked to a
      frame's own: a frozen encoder cannot learn to include their context.
    layer_index: layers of Whisper after which its features are taken; 0: all.
    gain: the waveform is scaled by up to this many decibels, up or down.
    noise: white noise of this share of the waveform's own std.
    window: frames encoded at once in `predict`.
    margin: half of the overlap in which neighbouring windows are crossfaded.
    relative: what is predicted is the difference from the speaker's own mean
      expression, by their own spread; see `person_scale`.
    init_from: run or exported network whose parameters a run begins from.
    ema_decay: of the averaged parameters, which are the ones used; 0 uses the
      trained ones themselves.
    accumulate: equal parts of a batch, one after another.
    dtype: of the networks' activations; see `precision`.
    remat: what the gradient computes again; see `precision`.
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
  context_frames: int = 0
  layer_index: int = 0
  gain: float = 0.0
  noise: float = 0.0
  window: int = 100
  margin: int = 15
  relative: bool = False
  init_from: str = ""
  ema_decay: float = 0.0
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class Expression(base.Stage):
  """Trains the expression decoder, and its speech encoder, on the face fits."""

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
    for name, known in (("encoder", ENCODERS), ("mode", MODES)):
      if (value := getattr(config, name)) not in known:
        raise ConfigError(f"{name}={value!r} must be one of {known}")
    if not 0 <= 2 * config.margin < config.window:
      raise ConfigError(
        f"margin={config.margin} must be below half of window={config.window}"
      )
    if config.weights.lips and lip_basis is None:
      raise ConfigError(
        f"weights.lips={config.weights.lips} needs a lip_basis: the motion of "
        "the lip points by each coefficient"
      )
    self.config = config
    self.space = space
    self._lips = person_scale.lip_motion(space, lip_basis)
    fields = precision.fields(config.dtype, config.remat)
    model = dataclasses.replace(
      config.model,
      **fields,
      audio_size=encoder.config.width * (2 * config.context_frames + 1),
      identity_size=space.identity_size,
      expression_size=space.expression_size,
    )
    self.decoder = base.Network(
      lambda rngs: faceformer.ExpressionDecoder(model, rngs=rngs)
    )
    self.tuned = config.encoder == "wav2vec2"
    if not self.tuned:  # A frozen encoder keeps nothing for a gradient.
      del fields["remat"]
    self.encoder_config = encoder.config
    self.encoder, self._published = base.Network.of(encoder, **fields)
    super().__init__(mesh, {} if self.tuned else {"encoder": self._published})
    self._weights = dataclasses.asdict(config.weights)
    self._optimizer = optim_lib.build(config.optim, num_steps)
    self._train = self.compile_step(self._train_phase)
    self._evaluate = self.compile_rarely_run(self._evaluate_phase)
    self._encode_window = self.jit(self.encode_phase)
    self._start = self.jit(self.start_phase, static_argnames="num_frames")
    self._extend = self.jit(self.extend_phase, donate_argnums=1)

  def init_state(self, key: Key[Array, ""]) -> TrainState:
    """Initialises the decoder; `fresh` inserts a tuned encoder's parameters."""
    decoder = train_state.new_net(*self.decoder.init(key), self._optimizer)
    nets = {"decoder": decoder}
    if self.tuned:
      params, buffers = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), self._published
      )
      nets["encoder"] = train_state.new_net(params, buffers, self._optimizer)
    ema = {}
    if self.config.ema_decay:
      ema = {name: net.params for name, net in nets.items()}
    return TrainState(jnp.int32(0), nets, ema)

  def fresh(self, key: Key[Array, ""]) -> TrainState:
    """Returns a fresh decoder and the published encoder."""
    state = super().fresh(key)
    if not self.tuned:
      return state
    # Not in `init_state`, which is compiled: these would be 1.2 GB constants.
    place = self.shardings().nets["encoder"]
    params, buffers = jax.device_put(
      self._published, (place.params, place.buffers), may_alias=False
    )
    net = state.nets["encoder"]._replace(params=params, buffers=buffers)
    ema = dict(state.ema)
    if ema:  # A copy: the first step donates its input's memory.
      ema["encoder"] = jax.tree.map(jnp.copy, params)
    return state._replace(nets={**state.nets, "encoder": net}, ema=ema)

  def step(
    self,
    state: TrainState,
    batch: SpeechBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[TrainState, Metrics]:
    """Steps all networks that are trained."""
    return self._train(state, batch, prng.at_step(key, index))

  def evaluate(
    self, state: TrainState, batch: SpeechBatch, key: Key[Array, ""]
  ) -> Metrics:
    """Computes the terms autoregressively, for any training mode.

    `of_mean` is the error of the mean expression as a constant prediction:
    `expression` must fall below it to be of use.
    """
    del key
    return self._evaluate(state, self.frozen, batch)

  def speaker(self, state: TrainState) -> speaker.Speaker:
    """Returns a trained network ready for use."""
    return speaker.Speaker(
      functools.partial(self._encode_window, state, self.frozen),
      functools.partial(self._start, state),
      functools.partial(self._extend, state),
      window=self.config.window,
      margin=self.config.margin,
      context=self.config.model.context,
      relative=self.config.relative,
    )

  def predict(
    self,
    state: TrainState,
    waveform: Float[AnyArray, "n"],
    identity: Float[AnyArray, "i"],
    stats: ExpressionStats | None = None,
  ) -> Float[np.ndarray, "t e"]:
    """Predicts raw expressions, see `Speaker.predict`."""
    return self.speaker(state).predict(waveform, identity, stats)

  def _train_phase(self, state, frozen, batch, key):
    params = {name: net.params for name, net in state.nets.items()}

    def objective(params, batch, key):
      terms = self._terms(
        params, _buffers(state), frozen, batch, key, self.config.mode
      )
      return train_state.total(terms, self._weights)

    gradients, metrics = accumulation.accumulate_grad(
      objective, params, batch, key, self.config.accumulate
    )
    nets, net_metrics = train_state.update_all(
      state.nets, gradients, dict.fromkeys(gradients, self._optimizer)
    )
    state = train_state.advance(state, nets, self.config.ema_decay)
    return state, metrics | net_metrics

  def _evaluate_phase(self, state, frozen, batch):
    terms = self._terms(
      _used(state),
      _buffers(state),
      frozen,
      batch,
      None,
      "autoregressive",
    )
    metrics = train_state.total(terms, self._weights)[1]
    target = self._target(batch)
    of_mean = sequences.squared_error(
      target, jnp.zeros_like(target), batch.valid
    )
    return {**metrics, "of_mean": jnp.mean(of_mean)}

  def encode_phase(self, state, frozen, waveform, lengths):
    nets, num_frames = (_used(state), _buffers(state)), waveform.shape[1] // HOP
    return self._encode(*nets, frozen, waveform, num_frames, lengths)

  def start_phase(self, state, identity, *, num_frames):
    return self._bound_decoder(state).start(identity, num_frames=num_frames)

  def extend_phase(self, state, carry, features, stats):
    carry, part = self._bound_decoder(state).extend(carry, features)
    part = person_scale.from_relative(self.space, part, stats, self._lips)
    return carry, part

  def _bound_decoder(self, state):
    return self.decoder.bind(
      _used(state)["decoder"], _buffers(state)["decoder"]
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
    sizes = waveform.shape[1] // HOP, batch.length
    features = self._encode(
      params, buffers, frozen, waveform, *sizes, encoder_key
    )
    features = jax.vmap(
      lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, num_frames)
    )(features, batch.offset)
    decoder = self.decoder.bind(params["decoder"], buffers["decoder"])
    target = self._target(batch)
    # A frame without a face is fed back as the mean expression.
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

  def _target(self, batch):
    who = (batch.stats if self.config.relative else None), self._lips
    return person_scale.to_relative(self.space, batch.expression, *who)

  def _encode(
    self, params, buffers, frozen, waveform, num_frames, lengths, key=None
  ):
    """Encodes speech; no gradient flows into a frozen encoder."""
    options = {"lengths": lengths, "key": key}
    if self.tuned:
      encoder = self.encoder.bind(params["encoder"], buffers["encoder"])
      features = encoder(waveform, num_frames, **options)
    else:
      encoder = self.encoder.bind(*frozen["encoder"])
      features = encoder(waveform * WHISPER_LEVEL, num_frames, **options)
      features = jax.lax.stop_gradient(features)
    return interpolation.stack_neighbours(features, self.config.context_frames)


def _used(state):
  """Returns the averaged parameters where they are kept, else the trained."""
  return {name: net.params for name, net in state.nets.items()} | state.ema


def _buffers(state):
  return {name: net.buffers for name, net in state.nets.items()}
