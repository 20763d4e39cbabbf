"""The wav2vec 2.0 encoder: lengths, padding, what is frozen, what is random."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import wav2vec2

FAMILIES = ("group", "layer")


# Every random choice but the one a test is about.
QUIET = dict(
  feature_dropout=0.0,
  hidden_dropout=0.0,
  attention_dropout=0.0,
  activation_dropout=0.0,
  layer_drop=0.0,
  mask_time=0.0,
)


@functools.cache
def make(family="group", **changes):
  values = dict(
    conv_sizes=(6,) * 7,
    conv_bias=family == "layer",
    feature_norm=family,
    pre_norm=family == "layer",
    width=16,
    num_layers=1,
    num_heads=2,
    ffn=24,
    position_kernel=6,
    position_groups=2,
  )
  config = wav2vec2.Config(**(values | changes))
  return wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0))


@functools.cache
def compiled(model):
  graphdef, state = nnx.split(model)
  apply = jax.jit(
    lambda state, waveform, num_frames, arrays: nnx.merge(graphdef, state)(
      waveform, num_frames, **arrays
    ),
    static_argnums=2,
  )
  return functools.partial(apply, state)


def run(model, waveform, num_frames=None, **arrays):
  """The model, compiled: much sooner done than operation by operation."""
  return compiled(model)(waveform, num_frames, arrays)


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
  ("family", "millions"),
  [
    pytest.param("group", 315.43, marks=pytest.mark.slow),
    ("layer", 315.44),
  ],
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


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_as_transformers_has_it(family):
  waveform = speech(7 * 640 / 16_000)
  lengths = jnp.array([7 * 640, 5 * 640])
  true = wav2vec2.num_conv_frames(5 * 640, wav2vec2.Config())
  zeros = jnp.where(
    jnp.arange(waveform.shape[1]) < lengths[:, None], waveform, 0.0
  )
  outs = {
    padding: run(make(family, padding=padding), waveform, lengths=lengths)[
      1, :true
    ]
    for padding in wav2vec2.PADDINGS
  }
  # Without a mask, padding is a recording of nothing.
  np.testing.assert_array_equal(
    outs["silence"], run(make(family), zeros)[1, :true]
  )
  assert np.abs(outs["silence"] - outs["excluded"]).max() > 0.1
  # A mask hides padding from all but the group norm, over time.
  change = np.abs(outs["masked"] - outs["excluded"]).max()
  assert change > 0.01 if family == "group" else change == 0


def test_time_norm_is_that_of_the_true_frames_alone():
  x = np.random.default_rng(0).normal(3.0, 2.0, (2, 9, 4)).astype(np.float32)
  norm = wav2vec2.TimeNorm(4, rngs=nnx.Rngs(0))
  got = norm(jnp.asarray(x), jnp.array([9, 5]))
  for row, length in enumerate((9, 5)):
    y = x[row, :length].astype(np.float64)
    want = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
    # Float32 rounding of values up to 3.
    np.testing.assert_allclose(got[row, :length], want, atol=3e-6)


@pytest.mark.parametrize(
  ("length", "num_frames"), [(6, 3), (6, 31), (7, 16), (16, 40)]
)
def test_position_convolution_equals_the_direct_sum(length, num_frames):
  config = wav2vec2.Config(width=8, position_groups=2, position_kernel=length)
  model = wav2vec2.PositionConv(config, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(1), (2, num_frames, 8))
  kernel = jax.random.normal(jax.random.key(2), (length, 4, 8))

  def ours(x, kernel):
    graphdef, state = nnx.split(model)
    state["kernel"] = state["kernel"].replace(kernel)
    return nnx.merge(graphdef, state)(x)

  def direct(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1,),
      [(length // 2, length - 1 - length // 2)],
      dimension_numbers=("NHC", "HIO", "NHC"),
      feature_group_count=2,
    )

  # Sums of up to 64 products and transforms of 32 terms, rounded.
  np.testing.assert_allclose(ours(x, kernel), direct(x, kernel), atol=5e-5)
  got, want = (
    jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), argnums=(0, 1))(x, kernel)
    for f in (ours, direct)
  )
  for one, other in zip(got, want, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("frozen", [True, False])
def test_convolutions_are_frozen_if_asked(frozen):
  graphdef, params = nnx.split(make(freeze_convolutions=frozen), nnx.Param)
  gradients = jax.jit(
    jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(speech(), 10) ** 3))
  )(params)
  for leaf in jax.tree.leaves(gradients["features"]):
    assert np.all(leaf == 0) if frozen else np.any(leaf != 0)
  assert np.any(gradients["projection"]["kernel"][...] != 0)


@pytest.mark.parametrize("key", [None, jax.random.key(3)])
@pytest.mark.slow
def test_remat_changes_neither_values_nor_gradients(key):
  def value_and_gradients(remat):
    graphdef, params = nnx.split(make(remat=remat), nnx.Param)
    return jax.jit(
      jax.value_and_grad(
        lambda p: jnp.sum(nnx.merge(graphdef, p)(speech(), 10, key=key) ** 3)
      )
    )(params)

  want, got = value_and_gradients(False), value_and_gradients(True)
  # The same sums, only compiled in another order.
  for one, other in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    np.testing.assert_allclose(
      one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max()
    )


def test_remat_remembers_less():
  def residuals(remat):
    graphdef, params = nnx.split(make(remat=remat, num_layers=3), nnx.Param)
    _, pullback = jax.eval_shape(
      lambda p: jax.vjp(lambda p: nnx.merge(graphdef, p)(speech(), 10), p),
      params,
    )
    return sum(x.size for x in jax.tree.leaves(pullback))

  assert residuals(True) < 0.7 * residuals(False)


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
  # One span as long as the sequence: all speeches sound the same.
  model = make(**QUIET | dict(mask_time=1.0, mask_time_span=12))
  one, two = run(model, speech(), 12, key=jax.random.key(1))
  np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(
    run(make(**QUIET), speech(), 12, key=jax.random.key(1)),
    run(make(**QUIET), speech(), 12),
  )


def hidden_frames(lengths, num_keys):
  """Which of 100 frames SpecAugment replaced, for many keys."""
  # Each frame by itself: no layers, no convolution over the frames.
  model = copy.deepcopy(make(**QUIET | dict(mask_time=0.05, num_layers=0)))
  model.position_conv.kernel[...] = jnp.zeros_like(
    model.position_conv.kernel[...]
  )
  waveform = jax.random.normal(jax.random.key(0), (2, 64_000))
  keys = jax.random.split(jax.random.key(1), num_keys)
  plain = run(model, waveform, 100, lengths=lengths)
  drawn = [run(model, waveform, 100, lengths=lengths, key=key) for key in keys]
  return np.abs(np.stack(drawn) - plain).max(axis=-1) > 1e-3


def test_two_spans_of_ten_are_hidden_of_a_hundred_frames():
  rows = hidden_frames(jnp.array([64_000, 64_000]), 16).reshape(-1, 100)
  assert len(np.unique(rows, axis=0)) > 16  # Other keys and rows, other spans.
  for row in rows:
    edges = np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))
    spans = edges[1::2] - edges[::2]
    # Two spans, or one where they overlap or touch.
    assert list(spans) == [10, 10] or (len(spans) == 1 and 10 <= spans[0] <= 20)
  assert rows.sum(axis=1).max() == 20


def test_padded_frames_are_never_chosen_for_a_span():
  # 25 true frames of 100: spans chosen anywhere would mostly miss them.
  rows = hidden_frames(jnp.array([64_000, 16_000]), 16)[:, 1]
  assert not rows[:, 25:].any()
  assert (rows.sum(axis=1) >= 10).all()


def test_layer_drop_passes_all_layers_over_or_none():
  key = jax.random.key(2)
  model = make(**QUIET | dict(layer_drop=1.0, num_layers=2))
  without = copy.deepcopy(model)
  without.config = dataclasses.replace(model.config, num_layers=0)
  np.testing.assert_array_equal(
    run(model, speech(), 12, key=key), run(without, speech(), 12)
  )
  # Without a key nothing is dropped, whatever the rate.
  np.testing.assert_array_equal(
    run(model, speech(), 12),
    run(make(**QUIET | dict(num_layers=2)), speech(), 12),
  )
  assert np.any(run(model, speech(), 12) != run(without, speech(), 12))
  np.testing.assert_array_equal(
    run(make(**QUIET), speech(), 12, key=key), run(make(**QUIET), speech(), 12)
  )


def test_attention_logits_are_not_rounded_to_bfloat16():
  config = wav2vec2.Config(width=16, num_heads=1, ffn=8, dtype="bfloat16")
  layer = wav2vec2.Layer(config, rngs=nnx.Rngs(0))
  for name in ("query", "key", "value", "out"):
    getattr(layer, name).kernel[...] = jnp.eye(16) * (name != "query")
    getattr(layer, name).bias[...] = jnp.zeros(16)
  # With the scale of 1/4, query (8, 1/4) and keys (12.5, 0) and (12.5, 1): the
  # logits are 100 and 100.25, which bfloat16 cannot tell apart.
  layer.query.bias[...] = jnp.zeros(16).at[:2].set(jnp.array([32.0, 1.0]))
  x = jnp.zeros((1, 2, 16), jnp.bfloat16).at[0, :, 0].set(12.5)
  out = layer._attend(x.at[0, 1, 1].set(1.0), jnp.zeros((1, 1, 1, 2)), None)
  want = jax.nn.sigmoid(0.25)
  np.testing.assert_allclose(np.float32(out[0, :, 1]), want, rtol=2**-8)


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
  with pytest.raises(ValueError, match="padding='mirror' must be one of"):
    make(padding="mirror")
