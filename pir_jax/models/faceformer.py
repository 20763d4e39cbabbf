"""Speech features and an identity to a sequence of expressions.

The autoregressive decoder of the paper (supplement, section 1), which is
FaceFormer's (Fan et al., CVPR 2022) with the identity coefficients as style:
one post-norm transformer layer between small linear maps.
b batch, t frames, s remembered frames, a audio channels, i identity and e
expression coefficients, d width, h heads.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from pir_jax import ranges
from pir_jax.models import attention
from pir_jax.ops import attention_bias
from pir_jax.types import ConfigError


@ranges.declare(dropout=ranges.DECAY)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the decoder; the defaults are the paper's.

  Attributes:
    audio_size: channels of the speech encoder.
    period: of the positions and of the bias, in frames.
    style: whether the identity is the decoder's style, as in FaceFormer; if
      not, all speak in the same way.
    dropout: share dropped when there is a key.
    context: past frames that self-attention may see; None: all of them.
    remat: the gradient keeps little and computes the rest again.
    dtype: of the activations; norms, softmax and expressions are float32.
  """

  identity_size: int = 80
  expression_size: int = 64
  audio_size: int = 1024
  width: int = 1024
  num_heads: int = 4
  ffn: int = 2048
  period: int = 25
  style: bool = True
  dropout: float = 0.1
  context: int | None = None
  remat: bool = False
  dtype: str = "float32"


def periodic_positions(
  frames: Int[Array, "t"], *, width: int, period: int
) -> Float[Array, "t d"]:
  """Returns sinusoids of the frame index modulo the period, base 10000.

  Sine on even channels, cosine on odd ones. Computed, not tabled: the released
  tables stop at 600 frames, a sequence here may have any length.
  """
  frequency = 10000.0 ** (-jnp.arange(0, width, 2) / width)
  phase = (frames % period)[:, None].astype(jnp.float32) * frequency
  both = jnp.stack([jnp.sin(phase), jnp.cos(phase)], axis=-1)
  return both.reshape(len(frames), -1)[:, :width]


def _scan_in_blocks(step, carry, inputs):
  """`lax.scan` whose gradient keeps the carry once a block of sqrt(t) steps.

  All else is computed again. Checkpointing the step alone would still keep
  the carry, here the whole cache, once a step.
  """
  num_steps = len(jax.tree.leaves(inputs)[0])
  size = max(1, math.isqrt(num_steps))
  whole = num_steps - num_steps % size
  blocks = jax.tree.map(
    lambda x: x[:whole].reshape(whole // size, size, *x.shape[1:]), inputs
  )
  run = jax.checkpoint(lambda *block: jax.lax.scan(step, *block))
  carry, out = jax.lax.scan(run, carry, blocks)
  carry, last = run(carry, jax.tree.map(lambda x: x[whole:], inputs))
  return carry, jnp.concatenate([out.reshape(whole, *out.shape[2:]), last])


class DecoderLayer(nnx.Module):
  """Self-attention, attention to the audio, feed-forward; norms come after."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the layer."""
    width, heads = config.width, config.num_heads
    keep = dict(dtype=config.dtype, rngs=rngs)
    self.dropout_rate = config.dropout
    self.self_attention = attention.Attention(width, heads, **keep)
    self.cross_attention = attention.Attention(width, heads, **keep)
    self.expand = attention.linear(width, config.ffn, **keep)
    self.contract = attention.linear(config.ffn, width, **keep)
    # Statistics in float32, outputs in the dtype of the rest.
    dtype = jnp.dtype(config.dtype)
    self.norms = nnx.List(
      nnx.LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
      for _ in range(3)
    )

  def look_back(
    self,
    x: Float[Array, "b t d"],
    past: attention.Memory,
    bias: Float[Array, "h t s"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Attends from t tokens to the past."""
    keys = attention.subkeys(key, 2)
    rate = self.dropout_rate
    y = self.self_attention(x, past, bias, dropout_rate=rate, key=keys[0])
    return self.norms[0](x + attention.dropout(y, rate, keys[1]))

  def attend_audio(
    self,
    audio: Float[Array, "b t d"],
    kept: Float[Array, "b t h"] | None = None,
  ) -> Float[Array, "b t d"]:
    """Attends to the audio under the diagonal bias, all frames at once.

    The softmax over one key is 1 whatever the query: the query and key maps
    change nothing and get no gradient. They stay, so that published weights
    fit and another bias can be tried.

    Args:
      audio: frame i is all that frame i attends to.
      kept: attention weights after dropout; None: all of them 1.
    """
    values = self.cross_attention.value(audio)
    if kept is not None:
      heads = values.reshape(*kept.shape, -1)
      heads = (heads * kept[..., None]).astype(values.dtype)
      values = heads.reshape(values.shape)
    return self.cross_attention.out(values)

  def finish(
    self,
    x: Float[Array, "b t d"],
    attended: Float[Array, "b t d"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Adds the attended audio, then the feed-forward."""
    rate, keys = self.dropout_rate, attention.subkeys(key, 3)
    x = self.norms[1](x + attention.dropout(attended, rate, keys[0]))
    y = attention.dropout(jax.nn.relu(self.expand(x)), rate, keys[1])
    return self.norms[2](x + attention.dropout(self.contract(y), rate, keys[2]))


class Carry(NamedTuple):
  """The decoder's state: past s tokens, the next and its index.

  Token p lies in slot p mod s of the cache; `token` has no position yet.
  """

  cache: attention.Memory
  token: Float[Array, "b d"]
  frame: Int[Array, ""]
  style: Float[Array, "b d"]


class ExpressionDecoder(nnx.Module):
  """Speech features and an identity to expressions, frame after frame."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the network."""
    self.config = config
    width, keep = config.width, dict(dtype=config.dtype, rngs=rngs)
    linear = attention.linear
    self.audio_map = linear(config.audio_size, width, **keep)
    if config.style:
      self.style_map = linear(config.identity_size, width, bias=False, **keep)
    self.expression_map = linear(config.expression_size, width, **keep)
    self.layer = DecoderLayer(config, rngs=rngs)
    # Zero at the start, as in FaceFormer: the first prediction is the mean.
    zeros = nnx.initializers.zeros
    self.expression_out = nnx.Linear(
      width,
      config.expression_size,
      kernel_init=zeros,
      dtype=jnp.dtype(config.dtype),
      rngs=rngs,
    )

  def teacher_forced(
    self,
    audio_features: Float[Array, "b t a"],
    identity: Float[Array, "b i"],
    expression: Float[Array, "b t e"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t e"]:
    """Predicts each frame from the true frames before it, in one pass.

    The first token is the style alone: there is no expression before it.
    """
    frames = jnp.arange(audio_features.shape[1])
    style = self._style(identity)[:, None]
    fed_back = self.expression_map(expression[:, :-1]) + style
    tokens = jnp.concatenate([style, fed_back], axis=1)
    position_key, look_key, audio_key, finish_key = attention.subkeys(key, 4)
    x = self._positioned(tokens, frames, position_key)
    layer, to_audio = self.layer, self.layer.cross_attention
    past = layer.self_attention.keys_values(x)
    bias = self._past_bias(frames, frames)
    x = layer.look_back(x, past, bias, key=look_key)
    # Not `attend_audio` but the published module, against which it is tested.
    attended = to_audio(
      x,
      to_audio.keys_values(self.audio_map(audio_features)),
      attention_bias.diagonal_bias(len(frames))[None],
      dropout_rate=self.config.dropout,
      key=audio_key,
    )
    return self._out(layer.finish(x, attended, key=finish_key))

  def generate(
    self,
    audio_features: Float[Array, "b t a"],
    identity: Float[Array, "b i"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t e"]:
    """Predicts each frame from its own predictions before it.

    Past tokens never change under one causal layer: a scan with cached keys
    and values equals running the whole decoder anew at every frame. With a
    key, dropout is sampled once a frame (FaceFormer samples it anew for all
    frames at every step). Gradients flow through what is fed back. Audio too
    long for one run goes through `start` and `extend`.
    """
    carry = self.start(identity, num_frames=audio_features.shape[1])
    return self.extend(carry, audio_features, key=key)[1]

  def start(
    self, identity: Float[Array, "b i"], *, num_frames: int | None = None
  ) -> Carry:
    """Returns the state before the first frame, for `extend`.

    There will be at most `num_frames`; None: any number.

    Raises:
      ConfigError: neither `num_frames` nor `config.context` bounds the cache.
    """
    bounds = [x for x in (num_frames, self.config.context) if x is not None]
    if not bounds or min(bounds) < 1:
      raise ConfigError(
        f"num_frames={num_frames} with context={self.config.context} bounds no "
        "cache: set one of them, at least 1"
      )
    style, heads = self._style(identity), self.config.num_heads
    shape = (len(style) * heads, min(bounds), self.config.width // heads)
    empty = jnp.zeros(shape, style.dtype)
    return Carry(attention.Memory(empty, empty), style, jnp.int32(0), style)

  def _style(self, identity):
    if self.config.style:
      return self.style_map(identity)
    shape = len(identity), self.config.width
    return jnp.zeros(shape, jnp.dtype(self.config.dtype))

  def extend(
    self,
    carry: Carry,
    audio_features: Float[Array, "b t a"],
    *,
    key: Array | None = None,
  ) -> tuple[Carry, Float[Array, "b t e"]]:
    """Predicts the next t frames; any cut into pieces equals one run.

    Dropout depends on the key and the frame index: pass every piece the same
    key. Frames past the `num_frames` of `start` are NaN: the cache is too
    short.
    """
    size = carry.cache.keys.shape[1]
    frames = carry.frame + jnp.arange(audio_features.shape[1])
    kept, keys = self._sample_dropout(key, len(carry.token), frames)
    attended = self.layer.attend_audio(self.audio_map(audio_features), kept)
    scan = _scan_in_blocks if self.config.remat else jax.lax.scan
    carry, out = scan(self._next, carry, (attended.swapaxes(0, 1), keys))
    out = out.swapaxes(0, 1)
    if self.config.context is None or size < self.config.context:
      out = jnp.where((frames < size)[:, None], out, jnp.nan)
    return carry, out

  def _sample_dropout(self, key, batch, frames):
    """Samples weights (b t h) for `attend_audio`, keys (t 3) for `_next`."""
    if key is None:
      return None, None

    def sample(frame):
      ones = jnp.ones((batch, self.config.num_heads))
      keys = jax.random.split(jax.random.fold_in(key, frame), 4)
      return attention.dropout(ones, self.config.dropout, keys[0]), keys[1:]

    return jax.vmap(sample, out_axes=(1, 0))(frames)

  def _next(self, carry, inputs):
    """Decodes one frame: (b d) attended audio -> (b e) expression."""
    attended, keys = inputs
    position_key, look_key, finish_key = [None] * 3 if keys is None else keys
    frame, layer = carry.frame, self.layer
    x = self._positioned(carry.token[:, None], frame[None], position_key)
    size = carry.cache.keys.shape[1]
    cache = jax.tree.map(
      lambda old, new: jax.lax.dynamic_update_slice_in_dim(
        old, new, frame % size, axis=1
      ),
      carry.cache,
      layer.self_attention.keys_values(x),
    )
    # The newest token p <= frame with p = slot (mod size); negative: none yet.
    slots = frame - (frame - jnp.arange(size)) % size
    bias = self._past_bias(frame[None], slots)
    x = layer.look_back(x, cache, bias, key=look_key)
    x = layer.finish(x, attended[:, None], key=finish_key)
    expression = self._out(x)[:, 0]
    token = self.expression_map(expression) + carry.style
    return Carry(cache, token, frame + 1, carry.style), expression

  def _out(self, x):
    return self.expression_out(x).astype(jnp.float32)

  def _past_bias(self, queries, keys):
    config = self.config
    return attention_bias.temporal_bias(
      queries,
      keys,
      num_heads=config.num_heads,
      period=config.period,
      context=config.context,
    )

  def _positioned(self, x, frames, key):
    """Adds the periodic positions to (b t d) tokens."""
    positions = periodic_positions(
      frames, width=x.shape[-1], period=self.config.period
    )
    x = x + positions.astype(x.dtype)
    return attention.dropout(x, self.config.dropout, key)
