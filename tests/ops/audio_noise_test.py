"""Loudness and noise are the ones asked for."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.ops import audio_noise


def _disturb(key, waveform):
  return audio_noise.disturb(key, waveform, gain=6.0, noise=0.5)


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_loudness_and_noise_are_within_their_bounds(self):
    waveform = jnp.asarray(
      np.random.default_rng(0).normal(size=(64, 4000)), jnp.float32
    )

    def disturb(gain, noise):
      return self.variant(
        lambda x: audio_noise.disturb(
          jax.random.key(0), x, gain=gain, noise=noise
        )
      )(waveform)

    before = np.std(waveform, axis=1)
    decibels = 20 * np.log10(np.std(disturb(6.0, 0.0), axis=1) / before)
    assert np.max(np.abs(decibels)) <= 6.0 + 1e-3
    assert np.min(decibels) < -3 and np.max(decibels) > 3
    # 4000 samples know their std to about 1 / sqrt(8000) = 1.1 %.
    np.testing.assert_allclose(
      np.std(disturb(0.0, 0.5) - waveform, axis=1), 0.5 * before, rtol=0.06
    )


def test_silence_stays_silence():
  np.testing.assert_array_equal(
    _disturb(jax.random.key(0), jnp.zeros((2, 50))), 0
  )


def test_noise_follows_the_row_s_loudness():
  key, waveform = (
    jax.random.key(0),
    jax.random.normal(jax.random.key(1), (2, 9)),
  )
  loud = jnp.array([[1.0], [100.0]])
  # Float32 products in another order.
  np.testing.assert_allclose(
    _disturb(key, loud * waveform), loud * _disturb(key, waveform), rtol=1e-5
  )


def test_values_and_gradients_are_finite_at_extremes(extreme):
  # Not a constant row: its standard deviation of 0 has no gradient.
  waveform = extreme * jnp.array([[1.0, 0.5, -1.0]]) + jnp.array([[1.0, 0, 0]])

  def total(x):
    return jnp.sum(_disturb(jax.random.key(0), x))

  chex.assert_tree_all_finite(jax.value_and_grad(total)(waveform))
