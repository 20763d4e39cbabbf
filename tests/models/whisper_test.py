"""The log-mel front end and the encoder over it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import whisper


@functools.cache
def make(**changes):
  fields = dict(width=12, num_heads=2, num_layers=2, ffn=16) | changes
  return whisper.WhisperEncoder(whisper.Config(**fields), rngs=nnx.Rngs(0))


def run(model, waveform, num_frames=None, **arrays):
  """The model, compiled: much sooner done than operation by operation."""
  graphdef, state = nnx.split(model)
  return jax.jit(lambda s, w, a: nnx.merge(graphdef, s)(w, num_frames, **a))(
    state, waveform, arrays
  )


def slow_log_mel(waveform):
  """One row, float64, a Fourier sum written out."""
  padded = np.concatenate([waveform[200:0:-1], waveform, np.zeros(200)])
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
  wave = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(201)) / 400)
  power = [
    np.abs((padded[160 * i : 160 * i + 400] * hann) @ wave) ** 2
    for i in range(len(waveform) // 160)
  ]
  log = np.log10(np.maximum(power @ np.float64(whisper.mel_filters(80)), 1e-10))
  return (np.maximum(log, log.max() - 8) + 4) / 4


def test_log_mel_equals_a_written_out_fourier_sum():
  rng = np.random.default_rng(0)
  waveform = rng.normal(size=4000) * np.linspace(1e-3, 1, 4000)
  got = whisper.log_mel(jnp.asarray(waveform[None], jnp.float32))
  # A float32 transform against float64; the log of the quietest bins.
  np.testing.assert_allclose(got[0], slow_log_mel(waveform), atol=1e-4)


@pytest.mark.parametrize("hertz", [300, 1000, 2500, 6000])
def test_a_tone_is_loudest_in_the_band_around_it(hertz):
  # Slaney's scale: 3 mel for 200 Hz up to 1 kHz, then 27 for each factor 6.4.
  if hertz <= 1000:
    mel = 3 * hertz / 200
  else:
    mel = 15 + 27 * np.log(hertz / 1000) / np.log(6.4)
  top = 15 + 27 * np.log(8) / np.log(6.4)
  band = mel / top * 81 - 1
  tone = np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000)
  loudest = np.argmax(
    whisper.log_mel(jnp.asarray(tone[None], jnp.float32))[0, 25]
  )
  # The bands below 1 kHz are as narrow as the window's own resolution.
  assert abs(loudest - band) <= 1


def test_filters_have_unit_area():
  # Bands several 40 Hz bins wide; narrow ones miss their triangle's tip.
  area = whisper.mel_filters(80)[:, 45:].sum(axis=0) * 16_000 / 400
  np.testing.assert_allclose(area, 1.0, atol=0.03)


def test_speech_range_is_bounded_as_in_whisper():
  mel = whisper.log_mel(jnp.zeros((1, 3200)).at[0, 1600].set(1.0))
  assert np.ptp(mel) <= 2.0 + 1e-6  # Eight decades, divided by 4.


def test_frames():
  waveform = jax.random.normal(jax.random.key(0), (2, 6400))
  model = make()
  assert run(model, waveform).shape == (2, 20, 12)
  assert run(model, waveform, 10).shape == (2, 10, 12)
  assert run(make(full_window=True, max_frames=40), waveform, 10).shape == (
    2,
    10,
    12,
  )


@pytest.mark.parametrize("num_frames", [None, 10])
def test_padding_changes_nothing(num_frames):
  waveform = jax.random.normal(jax.random.key(0), (2, 6400))
  short = 6 * 640
  model = make()
  padded = run(model, waveform, num_frames, lengths=jnp.array([6400, short]))
  alone = run(model, waveform[1:, :short], num_frames and 6)
  # Sums over more (zero) terms round differently.
  np.testing.assert_allclose(
    padded[1, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5
  )


def test_a_full_window_hears_silence_after_the_speech():
  waveform = jax.random.normal(jax.random.key(0), (1, 3200))
  full = run(make(full_window=True, max_frames=20), waveform)
  silent = run(make(max_frames=20), jnp.pad(waveform, ((0, 0), (0, 3200))))
  np.testing.assert_array_equal(full, silent[:, :10])


def test_more_than_thirty_seconds_is_refused():
  with pytest.raises(ValueError, match="encode windows"):
    make(max_frames=10)(jnp.zeros((1, 3201)))


def test_features_of_a_layer_index_are_those_of_the_first_layers():
  waveform = jax.random.normal(jax.random.key(0), (1, 6400))
  shallow = make(layer_index=1)
  deep = make(layer_index=1)
  # What lies behind that layer changes nothing.
  deep.layers[1].out.kernel[...] += 1.0
  np.testing.assert_array_equal(run(shallow, waveform), run(deep, waveform))
  assert np.any(run(make(), waveform) != run(shallow, waveform))


def test_a_fixed_floor_makes_a_pause_sound_alike_wherever_it_is():
  rng = np.random.default_rng(0)
  loud = jnp.asarray(rng.normal(size=(1, 3200)), jnp.float32)
  silence = jnp.zeros((1, 3200))
  mixed = jnp.concatenate([loud, silence], axis=1)
  alone = whisper.log_mel(silence, floor=-7.0)
  among = whisper.log_mel(mixed, floor=-7.0)
  np.testing.assert_allclose(among[0, 22:], alone[0, 2:])
  published = whisper.log_mel(mixed)[0, 22:] - whisper.log_mel(silence)[0, 2:]
  assert np.abs(published).min() > 0.1


def test_a_key_moves_the_positions_only():
  waveform = jax.random.normal(jax.random.key(0), (2, 3200))
  model = make()
  one = run(model, waveform, key=jax.random.key(1))
  np.testing.assert_array_equal(
    one, run(model, waveform, key=jax.random.key(1))
  )
  assert np.any(one != run(model, waveform))
  still = whisper.WhisperEncoder(model.config, rngs=nnx.Rngs(0))
  still.positions[...] = jnp.zeros_like(still.positions[...])
  np.testing.assert_array_equal(
    run(still, waveform), run(still, waveform, key=jax.random.key(1))
  )
