"""Random loudness and noise for waveforms.

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
  """Adds white noise to each row and changes its loudness.

  Args:
    key: random.
    waveform: rows of samples.
    gain: most decibels louder or quieter.
    noise: standard deviation of the noise, in the row's own.
  """
  gain_key, noise_key = jax.random.split(key)
  rows = (len(waveform), 1)
  if noise:
    std = jnp.std(waveform, axis=1, keepdims=True)
    grain = jax.random.normal(noise_key, waveform.shape)
    waveform = waveform + noise * std * grain
  if gain:
    decibels = jax.random.uniform(gain_key, rows, minval=-gain, maxval=gain)
    waveform = waveform * 10.0 ** (decibels / 20.0)
  return waveform
