"""Speech features and an identity to a sequence of expressions.

The autoregressive decoder of the paper (supplement, section 1), which is
FaceFormer's (Fan et al., CVPR 2022) with the identity coefficients as style:
one post-norm transformer layer between small linear maps.
b batch, t frames, s cached frames, a audio channels, i identity coefficients,
e expression coefficients, d width, h heads.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from pir_jax.ops import masks


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the decoder; the defaults are the paper's.

  Attributes:
    audio_size: channels of the speech encoder.
    period: of the positions and of the bias, in frames.
    dropout: share dropped when a key is given.
    context: past frames that self-attention may see; None: all of them.
  """

  identity_size: int = 80
  expression_size: int = 64
  audio_size: int = 1024
  width: int = 1024
  num_heads: int = 4
  ffn: int = 2048
  period: int = 25
  dropout: float = 0.1
  context: int | None = None


def periodic_positions(
  frames: Int[Array, "t"], *, width: int, period: int
) -> Float[Array, "t d"]:
  """Sinusoids of the frame number modulo the period, base 10000.

  Sine on even channels, cosine on odd ones. Computed, not tabled: the released
  tables stop at 600 frames, a sequence here may have any length.
  """
  rate = 10000.0 ** (-jnp.arange(0, width, 2) / width)
  phase = (frames % period)[:, None].astype(jnp.float32) * rate
  both = jnp.stack([jnp.sin(phase), jnp.cos(phase)], axis=-1)
  return both.reshape(len(frames), -1)[:, :width]


def _dropout(x, rate, key):
  """Zeroes a share of x and scales the rest; a None key keeps all."""
  if key is None or rate == 0.0:
    return x
  keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0)


def _subkeys(key, num):
  """Splits a key; a None key gives Nones."""
  return [None] * num if key is None else list(jax.random.split(key, num))


def _linear(size_in, size_out, *, rngs, bias=True):
  # PyTorch's own uniform initialisation, under which the recipe is known.
  uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
  bound = size_in**-0.5
  return nnx.Linear(
    size_in,
    size_out,
    use_bias=bias,
    kernel_init=uniform,
    bias_init=lambda key, shape, dtype: jax.random.uniform(
      key, shape, dtype, -bound, bound
    ),
    rngs=rngs,
  )


class Attention(nnx.Module):
  """Multi-head attention whose keys and values may come from a cache."""

  def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
    """Declares the four maps."""
    if width % num_heads:
      raise ValueError(f"width={width} must be a multiple of {num_heads} heads")
    # Uniform over the three stacked maps, as PyTorch draws them.
    stacked = nnx.initializers.variance_scaling(0.5, "fan_in", "uniform")
    self.num_heads = num_heads
    self.query = nnx.Linear(width, width, kernel_init=stacked, rngs=rngs)
    self.key = nnx.Linear(width, width, kernel_init=stacked, rngs=rngs)
    self.value = nnx.Linear(width, width, kernel_init=stacked, rngs=rngs)
    uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    self.out = nnx.Linear(width, width, kernel_init=uniform, rngs=rngs)

  def keys_values(
    self, x: Float[Array, "b s d"]
  ) -> tuple[Float[Array, "b s d"], Float[Array, "b s d"]]:
    """The keys and the values of a memory."""
    return self.key(x), self.value(x)

  def __call__(
    self,
    x: Float[Array, "b t d"],
    keys: Float[Array, "b s d"],
    values: Float[Array, "b s d"],
    bias: Float[Array, "#h t s"],
    *,
    rate: float = 0.0,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Attends from x to given keys and values under an additive bias."""

    def heads(y):
      return y.reshape(*y.shape[:2], self.num_heads, -1)

    query = heads(self.query(x))
    logits = jnp.einsum("bthc,bshc->bhts", query, heads(keys))
    logits = logits * query.shape[-1] ** -0.5 + bias
    weights = _dropout(jax.nn.softmax(logits, axis=-1), rate, key)
    mixed = jnp.einsum("bhts,bshc->bthc", weights, heads(values))
    return self.out(mixed.reshape(x.shape))


class DecoderLayer(nnx.Module):
  """Self-attention, attention to the audio, feed-forward; norms come after."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the layer."""
    width = config.width
    self.rate = config.dropout
    self.self_attention = Attention(width, config.num_heads, rngs=rngs)
    self.cross_attention = Attention(width, config.num_heads, rngs=rngs)
    self.expand = _linear(width, config.ffn, rngs=rngs)
    self.contract = _linear(config.ffn, width, rngs=rngs)
    self.norms = nnx.List(
      nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) for _ in range(3)
    )

  def __call__(
    self,
    x: Float[Array, "b t d"],
    past: tuple[Float[Array, "b s d"], Float[Array, "b s d"]],
    past_bias: Float[Array, "h t s"],
    audio: tuple[Float[Array, "b u d"], Float[Array, "b u d"]],
    audio_bias: Float[Array, "t u"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Runs t tokens against the (key, value) pairs of past and audio."""
    rate = self.rate
    keys = _subkeys(key, 6)
    y = self.self_attention(x, *past, past_bias, rate=rate, key=keys[0])
    x = self.norms[0](x + _dropout(y, rate, keys[1]))
    # The diagonal bias leaves one key a query, whose softmax is 1: query and
    # key maps change nothing and get no gradient. They stay, so that published
    # weights fit and another bias can be tried.
    y = self.cross_attention(
      x, *audio, audio_bias[None], rate=rate, key=keys[2]
    )
    x = self.norms[1](x + _dropout(y, rate, keys[3]))
    y = _dropout(jax.nn.relu(self.expand(x)), rate, keys[4])
    return self.norms[2](x + _dropout(self.contract(y), rate, keys[5]))


class Cache(NamedTuple):
  """Keys and values of the last s tokens; token p lies in slot p mod s."""

  keys: Float[Array, "b s d"]
  values: Float[Array, "b s d"]


class ExpressionDecoder(nnx.Module):
  """Speech features and an identity to expressions, frame after frame."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the network."""
    self.config = config
    width = config.width
    self.audio_map = _linear(config.audio_size, width, rngs=rngs)
    self.style_map = _linear(config.identity_size, width, bias=False, rngs=rngs)
    self.expression_map = _linear(config.expression_size, width, rngs=rngs)
    self.layer = DecoderLayer(config, rngs=rngs)
    # Zero at the start, as in FaceFormer: the first prediction is the mean.
    self.expression_out = nnx.Linear(
      width,
      config.expression_size,
      kernel_init=nnx.initializers.zeros,
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
    num_frames = audio_features.shape[1]
    frames = jnp.arange(num_frames)
    style = self.style_map(identity)[:, None]
    fed_back = self.expression_map(expression[:, :-1]) + style
    tokens = jnp.concatenate([style, fed_back], axis=1)
    position_key, layer_key = _subkeys(key, 2)
    x = self._positioned(tokens, frames, position_key)
    bias = self._past_bias(frames, frames)
    attention = self.layer.cross_attention
    x = self.layer(
      x,
      self.layer.self_attention.keys_values(x),
      bias,
      attention.keys_values(self.audio_map(audio_features)),
      masks.diagonal_bias(num_frames),
      key=layer_key,
    )
    return self.expression_out(x)

  def generate(
    self,
    audio_features: Float[Array, "b t a"],
    identity: Float[Array, "b i"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t e"]:
    """Predicts each frame from its own predictions before it.

    One scan with cached keys and values: past tokens never change under one
    causal layer, so without dropout this equals running the whole decoder anew
    at every frame. With a key, dropout is drawn once a frame (FaceFormer draws
    it anew for all frames at every step). Gradients flow through what is fed
    back. `config.context` bounds the cache for long audio.
    """
    batch, num_frames, _ = audio_features.shape
    config = self.config
    size = min(config.context or num_frames, num_frames)
    style = self.style_map(identity)
    audio = self.layer.cross_attention.keys_values(
      self.audio_map(audio_features)
    )
    empty = jnp.zeros((batch, size, config.width), style.dtype)

    def step(carry, inputs):
      cache, token = carry
      frame, audio_keys, audio_values = inputs
      frame_key = None if key is None else jax.random.fold_in(key, frame)
      expression, cache = self._next(
        cache, token, frame, (audio_keys, audio_values), frame_key
      )
      return (cache, self.expression_map(expression) + style), expression

    inputs = (jnp.arange(num_frames), *(x.swapaxes(0, 1) for x in audio))
    _, out = jax.lax.scan(step, (Cache(empty, empty), style), inputs)
    return out.swapaxes(0, 1)

  def _next(self, cache, token, frame, audio, key):
    """One frame: (b d) token -> (b e) expression, and the longer cache."""
    position_key, layer_key = _subkeys(key, 2)
    x = self._positioned(token[:, None], frame[None], position_key)
    size = cache.keys.shape[1]
    cache = Cache(
      *(
        jax.lax.dynamic_update_slice_in_dim(old, new, frame % size, axis=1)
        for old, new in zip(
          cache, self.layer.self_attention.keys_values(x), strict=True
        )
      )
    )
    # The newest token p <= frame with p = slot (mod size); negative: none yet.
    slots = frame - (frame - jnp.arange(size)) % size
    x = self.layer(
      x,
      cache,
      self._past_bias(frame[None], slots),
      tuple(y[:, None] for y in audio),
      jnp.zeros((1, 1)),
      key=layer_key,
    )
    return self.expression_out(x)[:, 0], cache

  def _past_bias(self, queries, keys):
    """The temporal bias, cut at `context` frames."""
    config = self.config
    bias = masks.temporal_bias(
      queries, keys, num_heads=config.num_heads, period=config.period
    )
    if config.context is None:
      return bias
    near = queries[:, None] - keys[None, :] < config.context
    return jnp.where(near, bias, -jnp.inf)

  def _positioned(self, x, frames, key):
    """Adds the periodic positions to (b t d) tokens."""
    config = self.config
    positions = periodic_positions(
      frames, width=config.width, period=config.period
    )
    return _dropout(x + positions, config.dropout, key)
