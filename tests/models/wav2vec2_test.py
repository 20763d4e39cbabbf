"""The wav2vec 2.0 encoder: lengths, padding, what is frozen, what is random."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import wav2vec2

FAMILIES = ("group", "layer")


@functools.cache
def make(family="group", **changes):
  config = wav2vec2.Config(
    conv_sizes=(6,) * 7,
    conv_bias=family == "layer",
    feature_norm=family,
    pre_norm=family == "layer",
    width=16,
    num_layers=2,
    num_heads=2,
    ffn=24,
    position_kernel=6,
    position_groups=2,
    **changes,
  )
  return wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0))


def run(model, waveform, num_frames=None, **arrays):
  """The model, compiled: much sooner done than operation by operation."""
  graphdef, state = nnx.split(model)
  return jax.jit(lambda s, w, a: nnx.merge(graphdef, s)(w, num_frames, **a))(
    state, waveform, arrays
  )


def speech(seconds=0.5):
  return jax.random.normal(jax.random.key(0), (2, int(16_000 * seconds)))


def test_frames_of_the_convolutions():
  config = wav2vec2.Config()
  frames = [
    wav2vec2.num_conv_frames(640 * k, config) for k in (1, 10, 50, 100, 200)
  ]
  assert frames == [1, 19, 99, 199, 399]
  assert run(make(), speech()).shape == (
    2,
    wav2vec2.num_conv_frames(8000, config),
    16,
  )
  assert run(make(), speech(), 13).shape == (2, 13, 16)


@pytest.mark.parametrize(
  ("family", "millions"), [("group", 315.43), ("layer", 315.44)]
)
def test_large_has_the_published_number_of_parameters(family, millions):
  layer = family == "layer"
  config = wav2vec2.Config(feature_norm=family, conv_bias=layer, pre_norm=layer)
  model = nnx.eval_shape(lambda: wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0)))
  size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
  assert round(size / 1e6, 2) == millions


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_frames", [None, 12])
def test_padding_changes_nothing(family, num_frames):
  model = make(family)
  waveform = speech(12 * 640 / 16_000)
  short = 7 * 640
  padded = run(
    model, waveform, num_frames, lengths=jnp.array([12 * 640, short])
  )
  alone = run(model, waveform[1:, :short], num_frames and 7)
  # Sums over more (zero) terms round differently.
  np.testing.assert_allclose(
    padded[1, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    padded[:1], run(model, waveform[:1], num_frames), rtol=1e-4, atol=1e-5
  )


def test_loudness_and_offset_of_the_recording_do_not_matter():
  model = make()
  # Offset and gain leave float32 rounding of normalised samples.
  np.testing.assert_allclose(
    run(model, speech()), run(model, 3.0 * speech() + 0.5), rtol=1e-3, atol=1e-4
  )


@pytest.mark.parametrize("frozen", [True, False])
def test_convolutions_are_frozen_if_asked(frozen):
  graphdef, params = nnx.split(make(freeze_convolutions=frozen), nnx.Param)
  gradients = jax.grad(
    lambda p: jnp.sum(nnx.merge(graphdef, p)(speech(), 10) ** 3)
  )(params)
  assert frozen != any(
    np.any(x) for x in jax.tree.leaves(gradients["features"])
  )
  assert np.any(gradients["projection"]["kernel"][...] != 0)


def test_deterministic_without_a_key_and_by_key_with_one():
  model = make()
  key = jax.random.key(1)
  np.testing.assert_array_equal(
    run(model, speech(), 12), run(model, speech(), 12)
  )
  first = run(model, speech(), 12, key=key)
  np.testing.assert_array_equal(first, run(model, speech(), 12, key=key))
  assert np.any(first != run(model, speech(), 12))


def test_hidden_spans_say_nothing_of_the_speech():
  rates = dict(
    feature_dropout=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    layer_drop=0.0,
  )
  model = make(mask_time=1.0, mask_time_span=12, **rates)
  key = jax.random.key(1)
  # One span as long as the sequence: all speeches sound the same.
  one, two = run(model, speech(), 12, key=key)
  np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
  none = make(mask_time=0.0, **rates)
  np.testing.assert_array_equal(
    run(none, speech(), 12, key=key), run(none, speech(), 12)
  )


def test_bfloat16_follows_float32():
  exact, rough = make(), make(dtype="bfloat16")
  out = run(rough, speech(), 12)
  assert out.dtype == jnp.bfloat16
  # Eight bits of mantissa through nine layers, on outputs of unit variance.
  np.testing.assert_allclose(
    out.astype(jnp.float32), run(exact, speech(), 12), atol=0.15
  )


def test_too_short_and_unknown_norms_are_refused():
  with pytest.raises(ValueError, match="399 samples are too few"):
    make()(jnp.zeros((1, 399)))
  with pytest.raises(ValueError, match='must be "group" or "layer"'):
    make("batch")
