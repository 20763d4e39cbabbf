"""Loudness and noise are the ones asked for."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.ops import audio_noise


def test_augmentation_has_the_asked_loudness_and_noise():
  waveform = jnp.asarray(
    np.random.default_rng(0).normal(size=(64, 4000)), jnp.float32
  )
  key = jax.random.key(0)
  louder = audio_noise.disturb(key, waveform, gain=6.0, noise=0.0)
  decibels = 20 * np.log10(np.std(louder, axis=1) / np.std(waveform, axis=1))
  assert np.max(np.abs(decibels)) <= 6.0 + 1e-3
  assert np.min(decibels) < -3 and np.max(decibels) > 3
  noisy = audio_noise.disturb(key, waveform, gain=0.0, noise=0.5)
  # 4000 samples know their deviation to about 1 / sqrt(8000) = 1.1 %.
  np.testing.assert_allclose(
    np.std(noisy - waveform, axis=1),
    0.5 * np.std(waveform, axis=1),
    rtol=0.06,
  )
