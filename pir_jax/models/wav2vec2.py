"""The wav2vec 2.0 speech encoder (Baevski et al., 2020), both families.

Group-norm with post-norm layers (wav2vec2-base, -large) and layer-norm with
pre-norm layers (-lv60, XLSR). As in FaceFormer, the convolutional features are
resampled to the video frame rate before the transformer.
b batch, n audio samples, s convolutional frames (50 Hz), t output frames,
d width, h heads, c channels, k kernel size, i channels of a group.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from pir_jax.models import scan_layers
from pir_jax.ops import attention_bias, grouped_conv1d, interpolation
from pir_jax.types import ConfigError

PADDINGS = ("excluded", "masked", "silence")
_NORM_EPSILON = 1e-5  # Of the norms between convolutions, in every variant.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes and dropout rates; the defaults are wav2vec2-large, as in the paper.

  Attributes:
    feature_norm: "group" (over time, first convolution only) or "layer".
    pre_norm: norms inside the residual branches ("stable layer norm").
    padding: what the samples past a row's length do. "excluded": nothing, a
      padded row equals the row alone. The others are what transformers does:
      "masked", with an attention mask: hidden too, but the group norm counts
      them. "silence", without one: zeros, encoded like any other sound.
    normalize: bring each row to zero mean and unit variance first, as the
      published feature extractor does before the network.
    freeze_convolutions: no gradient into the convolutions (FaceFormer).
    mask_time: share of frames hidden by SpecAugment spans when there is a key.
    mask_time_least: spans in any sequence that can hold them.
    mask_feature, mask_feature_least: the same for channels.
    layer_drop: chance that a layer is passed over when there is a key.
    remat: layers are computed again for the gradient, not remembered.
    dtype: of the activations; norms and softmax stay float32.
  """

  conv_sizes: tuple[int, ...] = (512,) * 7
  conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
  conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
  conv_bias: bool = False
  feature_norm: str = "group"
  pre_norm: bool = False
  width: int = 1024
  num_layers: int = 24
  num_heads: int = 16
  ffn: int = 4096
  position_kernel: int = 128
  position_groups: int = 16
  epsilon: float = 1e-5
  padding: str = "excluded"
  normalize: bool = False
  freeze_convolutions: bool = True
  feature_dropout: float = 0.1
  hidden_dropout: float = 0.1
  attention_dropout: float = 0.1
  activation_dropout: float = 0.1
  layer_drop: float = 0.1
  mask_time: float = 0.05
  mask_time_span: int = 10
  mask_time_least: int = 2
  mask_feature: float = 0.0
  mask_feature_span: int = 10
  mask_feature_least: int = 0
  remat: bool = False
  dtype: str = "float32"


def num_conv_frames(samples: Any, config: Config) -> Any:
  """Returns how many frames the convolutions make of samples (int or array)."""
  steps = zip(config.conv_kernels, config.conv_strides, strict=True)
  for kernel, stride in steps:
    samples = (samples - kernel) // stride + 1
  return samples


def _dropout(x, dropout_rate, key):
  """Zeroes a share of x and scales the rest; a None key keeps all."""
  if key is None or dropout_rate == 0.0:
    return x
  keep = jax.random.bernoulli(key, 1.0 - dropout_rate, x.shape)
  return jnp.where(keep, x / (1.0 - dropout_rate), jnp.zeros_like(x))


def _subkeys(key, num):
  return [None] * num if key is None else list(jax.random.split(key, num))


def _gelu(x):
  return jax.nn.gelu(x, approximate=False)


def _linear(size_in, size_out, config, rngs):
  return nnx.Linear(
    size_in,
    size_out,
    kernel_init=nnx.initializers.normal(0.02),
    dtype=jnp.dtype(config.dtype),
    rngs=rngs,
  )


def _layer_norm(size, epsilon, config, rngs):
  return nnx.LayerNorm(
    size, epsilon=epsilon, dtype=jnp.dtype(config.dtype), rngs=rngs
  )


class TimeNorm(nnx.Module):
  """Each channel to zero mean and unit variance over its true frames."""

  def __init__(self, size: int, *, rngs: nnx.Rngs):
    """Declares gain and shift."""
    del rngs
    self.scale = nnx.Param(jnp.ones(size))
    self.bias = nnx.Param(jnp.zeros(size))

  def __call__(
    self, x: Float[Array, "b s c"], lengths: Int[Array, "b"]
  ) -> Float[Array, "b s c"]:
    """Normalises; frames from `lengths` on do not count."""
    y = x.astype(jnp.float32)
    seen = (jnp.arange(x.shape[1]) < lengths[:, None])[..., None]
    # Not the sum of `seen`: XLA's CPU backend would take it anew for every
    # element, which costs a thousand times the convolution before it.
    count = lengths[:, None, None].astype(jnp.float32)
    y -= jnp.sum(jnp.where(seen, y, 0.0), axis=1, keepdims=True) / count
    square = jnp.sum(jnp.where(seen, y**2, 0.0), axis=1, keepdims=True)
    y = y * jax.lax.rsqrt(square / count + _NORM_EPSILON)
    return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class PositionConv(nnx.Module):
  """A long grouped convolution in time, zeros around the ends.

  An even kernel sees one frame less after than before. Weight norm is folded.
  """

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares kernel (k i d) and bias."""
    length, width = config.position_kernel, config.width
    shape = length, width // config.position_groups, width
    init = nnx.initializers.normal(2 * (length * width) ** -0.5)
    self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(width))

  def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Convolves in float32."""
    y = grouped_conv1d.correlate(x, self.kernel[...])
    return (y + self.bias[...]).astype(x.dtype)


class FeatureExtractor(nnx.Module):
  """Seven unpadded convolutions: samples to frames of 20 ms."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the convolutions and their norms."""
    kind = config.feature_norm
    if kind not in ("group", "layer"):
      raise ConfigError(f'feature_norm="{kind}" must be "group" or "layer"')
    self.config = config
    sizes = (1, *config.conv_sizes)
    self.convs = nnx.List(
      nnx.Conv(
        sizes[i],
        sizes[i + 1],
        (config.conv_kernels[i],),
        strides=config.conv_strides[i],
        padding="VALID",
        use_bias=config.conv_bias,
        kernel_init=nnx.initializers.he_normal(),
        dtype=jnp.dtype(config.dtype),
        rngs=rngs,
      )
      for i in range(len(config.conv_sizes))
    )
    if kind == "group":
      self.norms = nnx.List([TimeNorm(sizes[1], rngs=rngs)])
    else:
      self.norms = nnx.List(
        _layer_norm(size, _NORM_EPSILON, config, rngs) for size in sizes[1:]
      )

  def __call__(
    self, waveform: Float[Array, "b n"], lengths: Int[Array, "b"]
  ) -> Float[Array, "b s c"]:
    """Computes features; those past the true samples are not valid."""
    config = self.config
    if config.padding != "excluded":
      lengths = jnp.full_like(lengths, waveform.shape[1])
    lengths = (lengths - config.conv_kernels[0]) // config.conv_strides[0] + 1
    x = waveform[..., None]
    for i, conv in enumerate(self.convs):
      x = conv(x)
      if config.feature_norm == "layer":
        x = self.norms[i](x)
      elif i == 0:
        x = self.norms[0](x, lengths)
      x = _gelu(x)
    return x


class Layer(nnx.Module):
  """Self-attention and feed-forward, norms before or after each."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the layer."""
    self.config = config
    width = config.width
    self.query = _linear(width, width, config, rngs)
    self.key = _linear(width, width, config, rngs)
    self.value = _linear(width, width, config, rngs)
    self.out = _linear(width, width, config, rngs)
    self.attention_norm = _layer_norm(width, config.epsilon, config, rngs)
    self.expand = _linear(width, config.ffn, config, rngs)
    self.contract = _linear(config.ffn, width, config, rngs)
    self.ffn_norm = _layer_norm(width, config.epsilon, config, rngs)

  def __call__(
    self,
    x: Float[Array, "b t d"],
    bias: Float[Array, "b 1 1 t"],
    *,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Runs the layer; the bias hides padded keys."""
    attention_key, ffn_key = _subkeys(key, 2)
    if self.config.pre_norm:
      x = x + self._attend(self.attention_norm(x), bias, attention_key)
      return x + self._feed_forward(self.ffn_norm(x), ffn_key)
    x = self.attention_norm(x + self._attend(x, bias, attention_key))
    return self.ffn_norm(x + self._feed_forward(x, ffn_key))

  def _attend(self, x, bias, key):
    config = self.config
    weight_key, out_key = _subkeys(key, 2)

    def heads(y):  # (b h t c): a plain product a head, no copies in between.
      y = y.reshape(*y.shape[:2], config.num_heads, -1)
      return y.transpose(0, 2, 1, 3)

    query = heads(self.query(x)) * (config.width // config.num_heads) ** -0.5
    logits = jnp.matmul(
      query,
      heads(self.key(x)).swapaxes(2, 3),
      preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(logits + bias, axis=-1)
    weights = _dropout(weights, config.attention_dropout, weight_key)
    mixed = weights.astype(x.dtype) @ heads(self.value(x))
    y = self.out(mixed.transpose(0, 2, 1, 3).reshape(x.shape))
    return _dropout(y, config.hidden_dropout, out_key)

  def _feed_forward(self, x, key):
    inner_key, out_key = _subkeys(key, 2)
    y = _gelu(self.expand(x))
    y = _dropout(y, self.config.activation_dropout, inner_key)
    return _dropout(self.contract(y), self.config.hidden_dropout, out_key)


class Wav2Vec2(nnx.Module):
  """A waveform to contextual features at the video frame rate."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the network."""
    if config.padding not in PADDINGS:
      raise ConfigError(f"padding={config.padding!r} must be one of {PADDINGS}")
    self.config = config
    size, width = config.conv_sizes[-1], config.width
    self.features = FeatureExtractor(config, rngs=rngs)
    self.feature_norm = _layer_norm(size, config.epsilon, config, rngs)
    self.projection = _linear(size, width, config, rngs)
    self.mask_embedding = nnx.Param(jax.random.uniform(rngs.params(), (width,)))
    self.position_conv = PositionConv(config, rngs=rngs)
    self.norm = _layer_norm(width, config.epsilon, config, rngs)
    if config.num_layers:
      self.layers = scan_layers.stack(
        [Layer(config, rngs=rngs) for _ in range(config.num_layers)]
      )

  def __call__(
    self,
    waveform: Float[Array, "b n"],
    num_frames: int | None = None,
    *,
    lengths: Int[Array, "b"] | None = None,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Encodes mono speech at 16 kHz.

    Args:
      waveform: samples, at least 400.
      num_frames: video frames the waveform spans; the convolutional features
        are resampled linearly to them. None: not resampled, 50 Hz.
      lengths: true samples of each row, at least 400; what follows is padding
        (see Config.padding), whatever it holds. None: all of them.
      key: of dropout and SpecAugment; None is deterministic.
    """
    num_samples = waveform.shape[1]
    if num_conv_frames(num_samples, self.config) < 1:
      raise ValueError(f"{num_samples} samples are too few for one frame")
    every = jnp.full((len(waveform),), num_samples)
    lengths = every if lengths is None else lengths
    valid = jnp.arange(num_samples) < lengths[:, None]
    waveform = jnp.where(valid, waveform, 0.0)
    if self.config.padding == "silence":
      lengths, valid = every, True
    x = self._convolve(waveform, lengths, valid)
    true = num_conv_frames(lengths, self.config)
    if num_frames is not None:
      before, share = true, lengths / num_samples
      true = jnp.maximum(jnp.round(share * num_frames).astype(jnp.int32), 1)
      x = interpolation.resample_linear(
        x, num_frames, lengths=before, new_lengths=true
      )
    return self._transform(x, true, key)

  def _convolve(self, waveform, lengths, valid):
    """Computes the convolutional features; the waveform is 0 unless `valid`."""
    if self.config.normalize:
      mean = jnp.sum(waveform, axis=1, keepdims=True) / lengths[:, None]
      waveform = jnp.where(valid, waveform - mean, 0.0)
      square = jnp.sum(waveform**2, axis=1, keepdims=True)
      waveform *= jax.lax.rsqrt(square / lengths[:, None] + 1e-7)
    x = self.features(waveform, lengths)
    return jax.lax.stop_gradient(x) if self.config.freeze_convolutions else x

  def _transform(self, x, lengths, key):
    """Features (b t c) to contextual features (b t d)."""
    config = self.config
    span_key, feature_key, hidden_key, drop_key, layer_key = _subkeys(key, 5)
    x = self.projection(self.feature_norm(x))
    x = _dropout(x, config.feature_dropout, feature_key)
    if key is not None:
      x = self._hide_spans(x, lengths, *jax.random.split(span_key))
    seen = jnp.arange(x.shape[1]) < lengths[:, None]
    x = jnp.where(seen[..., None], x, jnp.zeros_like(x))
    bias = attention_bias.padding_bias(seen)
    x = x + _gelu(self.position_conv(x))
    if not config.pre_norm:
      x = self.norm(x)
    x = _dropout(x, config.hidden_dropout, hidden_key)
    if config.num_layers:
      x = self._through_layers(x, bias, drop_key, layer_key)
    return self.norm(x) if config.pre_norm else x

  def _through_layers(self, x, bias, drop_key, layer_key):
    config = self.config
    each = {"index": jnp.arange(config.num_layers)}
    if layer_key is not None:
      each["key"] = jax.random.split(layer_key, config.num_layers)

    def run(layer, x, part):
      y = layer(x, bias, key=part.get("key"))
      if drop_key is not None and config.layer_drop:
        u = jax.random.uniform(jax.random.fold_in(drop_key, part["index"]))
        y = jnp.where(u < config.layer_drop, x, y)
      return y

    return scan_layers.scan(self.layers, run, x, each, remat=config.remat)

  def _hide_spans(self, x, lengths, time_key, channel_key):
    """SpecAugment on the projected frames, after they were resampled."""
    config = self.config
    if config.mask_time and x.shape[1] >= config.mask_time_span:
      hidden = attention_bias.random_spans(
        time_key,
        x.shape[:2],
        probability=config.mask_time,
        span=config.mask_time_span,
        min_spans=config.mask_time_least,
        lengths=lengths,
      )
      embedding = self.mask_embedding[...].astype(x.dtype)
      x = jnp.where(hidden[..., None], embedding, x)
    if config.mask_feature:
      hidden = attention_bias.random_spans(
        channel_key,
        (x.shape[0], x.shape[2]),
        probability=config.mask_feature,
        span=config.mask_feature_span,
        min_spans=config.mask_feature_least,
      )
      x = jnp.where(hidden[:, None], jnp.zeros_like(x), x)
    return x
