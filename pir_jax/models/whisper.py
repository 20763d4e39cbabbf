"""The speech encoder of Whisper (Radford et al., 2022), tiny.en by default.

A light stand-in for wav2vec 2.0: log-mel spectrogram, two convolutions, four
pre-norm transformer layers, 50 frames a second.
b batch, n audio samples, m mel frames (100 Hz), s encoder frames (50 Hz),
t output frames, d width, h heads, f frequencies, c mel bins.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from pir_jax.ops import attention_bias, interpolation
from pir_jax.types import SAMPLE_RATE, ConfigError

WINDOW = 400  # samples of one spectrum: 25 ms.
HOP = 160  # samples between spectra: 10 ms.
STRIDE = 2 * HOP  # samples of one encoder frame.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes; the defaults are tiny.en.

  Attributes:
    max_frames: encoder frames that have a position: 30 s.
    full_window: pad every waveform with silence to `max_frames`, as Whisper
      was trained. Off by default: 4 s of speech then cost about a tenth, and
      the expression decoder is trained on the features it gets.
    layer_index: layers after which the features are taken, without the last
      norm; None: all of them, and the norm.
    floor: least log10 power of the spectrogram; None: 8 below the loudest of
      the row, as published, where a long pause is another sound than a short
      one.
    dtype: of the activations; the spectrogram, norms, softmax and the returned
      features are float32.
  """

  num_mels: int = 80
  width: int = 384
  num_heads: int = 6
  num_layers: int = 4
  ffn: int = 1536
  max_frames: int = 1500
  full_window: bool = False
  layer_index: int | None = None
  floor: float | None = None
  dtype: str = "float32"


@functools.cache
def mel_filters(num_mels: int) -> Float[np.ndarray, "f c"]:
  """Returns triangles of unit area, evenly spaced on Slaney's mel scale."""
  step = 200.0 / 3  # Hz a mel below 1 kHz; logarithmic above.
  knee, log_step = 1000.0 / step, np.log(6.4) / 27

  def to_hz(mel):
    high = 1000.0 * np.exp(log_step * (mel - knee))
    return np.where(mel < knee, step * mel, high)

  top = knee + np.log(SAMPLE_RATE / 2 / 1000.0) / log_step
  corners = to_hz(np.linspace(0.0, top, num_mels + 2))
  hertz = np.arange(WINDOW // 2 + 1)[:, None] * SAMPLE_RATE / WINDOW
  left, centre, right = corners[:-2], corners[1:-1], corners[2:]
  up = (hertz - left) / (centre - left)
  down = (right - hertz) / (right - centre)
  triangles = np.maximum(0.0, np.minimum(up, down)) * 2.0 / (right - left)
  return triangles.astype(np.float32)


def log_mel(
  waveform: Float[Array, "b n"],
  *,
  num_mels: int = 80,
  floor: float | None = None,
) -> Float[Array, "b m c"]:
  """Computes Whisper's log-mel spectrogram, m = n // 160 frames.

  Hann window of 400 samples centred on the frame; log10, floored 8 below the
  loudest bin of the row (or at `floor`), then (x + 4) / 4. The start is
  reflected as in Whisper; silence follows the end, as where Whisper pads to
  30 s.
  """
  num_frames = waveform.shape[1] // HOP
  half = WINDOW // 2
  if waveform.shape[1] <= half:
    raise ValueError(f"the waveform must be longer than {half} samples")
  before = waveform[:, half:0:-1]
  padded = jnp.concatenate(
    [before, waveform, jnp.zeros_like(waveform[:, :half])], axis=1
  )
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
  index = np.arange(num_frames)[:, None] * HOP + np.arange(WINDOW)
  pieces = padded[:, index] * window.astype(np.float32)
  power = jnp.abs(jnp.fft.rfft(pieces)) ** 2
  mel = jnp.matmul(power, mel_filters(num_mels), precision="highest")
  log = jnp.log10(jnp.maximum(mel, 1e-10))
  if floor is None:
    floor = jnp.max(log, axis=(1, 2), keepdims=True) - 8.0
  log = jnp.maximum(log, floor)
  return (log + 4.0) / 4.0


class Layer(nnx.Module):
  """Pre-norm self-attention and feed-forward; the key map has no bias."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the layer."""
    width = config.width
    keep = dict(dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.num_heads = config.num_heads
    self.attention_norm = nnx.LayerNorm(width, epsilon=1e-5, **keep)
    self.qkv = nnx.Linear(width, 3 * width, **keep)
    self.out = nnx.Linear(width, width, **keep)
    self.ffn_norm = nnx.LayerNorm(width, epsilon=1e-5, **keep)
    self.expand = nnx.Linear(width, config.ffn, **keep)
    self.contract = nnx.Linear(config.ffn, width, **keep)

  def __call__(
    self, x: Float[Array, "b s d"], bias: Float[Array, "#b 1 1 s"]
  ) -> Float[Array, "b s d"]:
    """Runs the layer; the bias hides padded keys."""
    qkv = self.qkv(self.attention_norm(x))
    qkv = qkv.reshape(*x.shape[:2], 3, self.num_heads, -1)
    query, key, value = (qkv[:, :, i] for i in range(3))
    logits = jnp.einsum(
      "bthc,bshc->bhts", query, key, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5 + bias, axis=-1)
    mixed = jnp.einsum("bhts,bshc->bthc", weights.astype(x.dtype), value)
    x = x + self.out(mixed.reshape(x.shape))
    y = jax.nn.gelu(self.expand(self.ffn_norm(x)), approximate=False)
    return x + self.contract(y)


class WhisperEncoder(nnx.Module):
  """A waveform to features at the video frame rate."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    """Declares the network."""
    self.config = config
    width = config.width
    keep = dict(dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.conv1 = nnx.Conv(config.num_mels, width, (3,), padding=1, **keep)
    self.conv2 = nnx.Conv(width, width, (3,), strides=2, padding=1, **keep)
    self.positions = nnx.Param(
      jax.random.normal(rngs.params(), (config.max_frames, width)) * 0.02
    )
    self.layers = nnx.List(
      Layer(config, rngs=rngs) for _ in range(config.num_layers)
    )
    self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

  def __call__(
    self,
    waveform: Float[Array, "b n"],
    num_frames: int | None = None,
    *,
    lengths: Int[Array, "b"] | None = None,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Encodes mono speech at 16 kHz, at most 30 s of it.

    Args:
      waveform: samples in [-1, 1].
      num_frames: video frames the waveform spans; the 50 Hz features are
        resampled linearly to them. None: as they are, t = ceil(n / 320).
      lengths: true samples of each row; what follows changes nothing.
      key: each row's first frame then has a random position, so that what is
        trained on the features does not learn where in a window a sound is;
        None: the first.

    Raises:
      ConfigError: the waveform is longer than 30 s; encode it in windows.
    """
    config = self.config
    last = config.layer_index
    if last is not None and not 1 <= last <= config.num_layers:
      raise ConfigError(
        f"layer_index={last} must lie in 1..{config.num_layers}, the layers"
      )
    num_rows, num_samples = waveform.shape
    own = -(-num_samples // STRIDE)  # Encoder frames of the waveform itself.
    if own > config.max_frames:
      raise ConfigError(
        f"{num_samples} samples are more than the "
        f"{config.max_frames * STRIDE} that have positions: encode windows"
      )
    frames = config.max_frames if config.full_window else own
    if lengths is None:
      lengths = jnp.full((num_rows,), num_samples)
    valid = jnp.arange(num_samples) < lengths[:, None]
    waveform = jnp.where(valid, waveform, 0.0)
    waveform = jnp.pad(waveform, ((0, 0), (0, frames * STRIDE - num_samples)))
    start = jnp.zeros((num_rows,), jnp.int32)
    if key is not None:
      free = config.max_frames - frames
      start = jax.random.randint(key, (num_rows,), 0, free + 1)
    x = self._encode(waveform, -(-lengths // STRIDE), start)[:, :own]
    if num_frames is None:
      return x
    return interpolation.resample_linear(
      x,
      num_frames,
      lengths=-(-lengths // STRIDE),
      new_lengths=jnp.round(lengths / num_samples * num_frames).astype(int),
    )

  def _encode(self, waveform, lengths, start):
    """(b n) to (b s d); `lengths` in encoder frames hide the padding.

    `start` is the position of each row's first frame.
    """
    config = self.config
    if config.full_window:  # Whisper takes its padding for silence.
      lengths = jnp.full_like(lengths, config.max_frames)
    mel = log_mel(waveform, num_mels=config.num_mels, floor=config.floor)
    half = (jnp.arange(mel.shape[1]) < 2 * lengths[:, None])[..., None]
    x = jnp.where(half, mel, 0.0)
    x = jax.nn.gelu(self.conv1(x), approximate=False)
    x = jnp.where(half, x, 0.0)
    x = jax.nn.gelu(self.conv2(x), approximate=False)
    positions = self.positions[...][start[:, None] + jnp.arange(x.shape[1])]
    x = x + positions.astype(x.dtype)
    bias = attention_bias.padding_bias(
      jnp.arange(x.shape[1]) < lengths[:, None]
    )
    for layer in list(self.layers)[: config.layer_index]:
      x = layer(x, bias)
    x = x.astype(jnp.float32)
    return self.norm(x) if config.layer_index is None else x
