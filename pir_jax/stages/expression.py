"""Stage 1: speech and identity -> expression.

The loss is the mean square of standardised coefficients, like FaceFormer's on
vertices; the paper's own is not known. b batch, n audio samples, t frames,
d feature channels, i identity and e expression coefficients.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.losses import sequences
from pir_jax.models import faceformer
from pir_jax.ops import audio
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import base
from pir_jax.types import (
  FRAME_RATE,
  SAMPLE_RATE,
  AnyArray,
  FaceSpace,
  SpeechBatch,
)

HOP = SAMPLE_RATE // FRAME_RATE  # samples of a frame.
MODES = ("autoregressive", "teacher_forced")


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term counts for; the paper leaves both open.

  Attributes:
    expression: mean square error of standardised coefficients.
    velocity: the same of their change from frame to frame.
  """

  expression: float = 1.0
  velocity: float = 0.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 1; the defaults are the paper's sizes.

  Attributes:
    model: of the decoder; its sizes of audio, identity and expression are
      overwritten by what the encoder and the data have.
    optim: FaceFormer's: Adam, constant rate.
    weights: of the losses.
    mode: in training, "autoregressive" feeds predictions back (FaceFormer) and
      "teacher_forced" the true frames; the use is always autoregressive.
    encoder: "wav2vec2", fine-tuned but for its convolutions, or "whisper",
      frozen.
    encoder_path: folder or Hugging Face name (wav2vec2), or file (whisper);
      "" takes the pinned asset, where there is one.
    gain: the waveform is scaled by up to this many decibels, either way.
    noise: white noise of this share of the waveform's own deviation.
    window: frames encoded at once in `predict`.
    margin: frames at each end of such a window left to its neighbours.
    ema_decay: of the averaged parameters, which are the ones used; 0 uses the
      trained ones themselves.
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
  gain: float = 0.0
  noise: float = 0.0
  window: int = 100
  margin: int = 15
  ema_decay: float = 0.0


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
  ):
    if config.mode not in MODES:
      raise ValueError(f"mode={config.mode!r} must be one of {MODES}")
    if not 0 <= 2 * config.margin < config.window:
      raise ValueError(
        f"margin={config.margin} must be below half of window={config.window}"
      )
    self.config = config
    self.space = space
    model = dataclasses.replace(
      config.model,
      audio_size=encoder.config.width,
      identity_size=space.identity_size,
      expression_size=space.expression_size,
    )
    self.decoder = base.Network(
      lambda rngs: faceformer.ExpressionDecoder(model, rngs=rngs)
    )
    self.tuned = config.encoder == "wav2vec2"
    self.encoder, self._published = base.Network.of(encoder)
    super().__init__(mesh, {} if self.tuned else {"encoder": self._published})
    self._optimizer = optim_lib.build(config.optim, num_steps)
    self._train = self.compile_step(self._train_phase)
    self._evaluate = jax.jit(self._evaluate_phase)
    self._encode_window = jax.jit(self._encode_phase)
    self._decode = jax.jit(self._decode_phase)

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
  ) -> Float[Array, "t e"]:
    """Raw expressions for speech of any length, t = ceil(n / 640) frames.

    The encoder sees windows that overlap by two margins, the decoder runs once
    over their joined features; memory for both is bounded by the Config.
    """
    if not len(waveform):
      raise ValueError("the waveform is empty: give at least one sample")
    num_frames = math.ceil(len(waveform) / HOP)
    window, margin = self.config.window, self.config.margin
    stride = window - 2 * margin
    more = max(0, math.ceil((num_frames - window) / stride))
    total = (window + more * stride) * HOP
    padded = jnp.pad(waveform, (0, total - len(waveform)))
    features = []
    for i in range(more + 1):
      start = i * stride * HOP
      piece = padded[None, start : start + window * HOP]
      part = self._encode_window(state, self.frozen, piece)[0]
      # The first window keeps its start, the last one its end.
      end = window - margin if i < more else window
      features.append(part[margin if i else 0 : end])
    joined = jnp.concatenate(features)
    # Causal, so what the padding adds at the end is simply cut off.
    out = self._decode(state, joined[None], identity[None])[0]
    return self.space.restore(out[:num_frames])

  def _train_phase(self, state, frozen, batch, key):
    def objective(params):
      terms = self._terms(
        params, _buffers(state), frozen, batch, key, self.config.mode
      )
      return base.total(terms, dataclasses.asdict(self.config.weights))

    params = {name: net.params for name, net in state.nets.items()}
    gradients, metrics = jax.grad(objective, has_aux=True)(params)
    nets = {
      name: base.update(net, gradients[name], self._optimizer)
      for name, net in state.nets.items()
    }
    return base.advance(state, nets, self.config.ema_decay), metrics

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

  def _encode_phase(self, state, frozen, waveform):
    return self._encode(
      _used(state), _buffers(state), frozen, waveform, self.config.window
    )

  def _decode_phase(self, state, features, identity):
    decoder = self.decoder.bind(
      _used(state)["decoder"], state.nets["decoder"].buffers
    )
    return decoder.generate(features, identity)

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
      waveform = audio.disturb(
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
    return {
      "expression": sequences.squared_error(out, target, batch.valid),
      "velocity": sequences.squared_error(*change, both),
    }

  def _encode(
    self, params, buffers, frozen, waveform, num_frames, lengths=None, key=None
  ):
    """Speech features; no gradient into a frozen encoder."""
    if self.tuned:
      encoder = self.encoder.bind(params["encoder"], buffers["encoder"])
      return encoder(waveform, num_frames, lengths=lengths, key=key)
    encoder = self.encoder.bind(*frozen["encoder"])
    return jax.lax.stop_gradient(encoder(waveform, num_frames, lengths=lengths))


def _used(state):
  """The parameters that are used: averaged ones where they are kept."""
  return {name: net.params for name, net in state.nets.items()} | state.ema


def _buffers(state):
  return {name: net.buffers for name, net in state.nets.items()}
