"""Waveforms disturbed.

b batch, n samples.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def disturb(
  key: Key[Array, ""],
  waveform: Float[Array, "b n"],
  *,
  gain: float,
  noise: float,
) -> Float[Array, "b n"]:
  """Random loudness (decibels, either way) and white noise of each row.

  The noise has `noise` times the row's own standard deviation.
  """
  gain_key, noise_key = jax.random.split(key)
  rows = (len(waveform), 1)
  if noise:
    deviation = jnp.std(waveform, axis=1, keepdims=True)
    grain = jax.random.normal(noise_key, waveform.shape)
    waveform = waveform + noise * deviation * grain
  if gain:
    decibels = jax.random.uniform(gain_key, rows, minval=-gain, maxval=gain)
    waveform = waveform * 10.0 ** (decibels / 20.0)
  return waveform
