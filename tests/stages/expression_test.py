"""The expression stage: one real step, what is trained, any length of speech.

b batch, t frames, i identity, e expression.
"""

import dataclasses
import functools
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import faceformer, wav2vec2, whisper
from pir_jax.runtime import optim, sharding
from pir_jax.stages import expression
from pir_jax.types import FRAME_RATE, ExpressionStats, FaceSpace, SpeechBatch

SPACE = FaceSpace(
  3,
  ("jaw", "lips"),
  np.array([0.3, -0.2], np.float32),
  np.array([0.1, 0.5], np.float32),
)
DECODER = faceformer.Config(
  width=16, ffn=24, num_heads=2, dropout=0.1, context=12
)


def small_encoder(name):
  if name == "whisper":
    return whisper.WhisperEncoder(
      whisper.Config(width=12, num_heads=2, num_layers=1, ffn=16),
      rngs=nnx.Rngs(0),
    )
  return wav2vec2.Wav2Vec2(
    wav2vec2.Config(
      conv_sizes=(4,) * 7,
      width=12,
      num_layers=1,
      num_heads=2,
      ffn=16,
      position_kernel=4,
      position_groups=2,
    ),
    rngs=nnx.Rngs(0),
  )


@functools.cache  # A stage holds no state: one compilation serves many tests.
def make_stage(encoder="whisper", mode="autoregressive", relative=False):
  config = expression.Config(
    model=DECODER,
    encoder=encoder,
    optim=optim.Config(learning_rate=3e-3),
    mode=mode,
    relative=relative,
    gain=3.0,
    window=12,
    margin=3,
    ema_decay=0.5,
  )
  return expression.Expression(
    config,
    SPACE,
    small_encoder(encoder),
    num_steps=100,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
  )


def make_batch(seed=0, num_frames=12, margin=0):
  """The second waveform ends with the last valid frame."""
  wide = num_frames + 2 * margin
  rng = np.random.default_rng(seed)
  valid = np.ones((2, num_frames), np.float32)
  valid[1, -4:] = 0
  valid[0, 3] = 0
  return SpeechBatch(
    jnp.asarray(rng.normal(size=(2, 640 * wide)) * 0.1, jnp.float32),
    jnp.full(2, margin, jnp.int32),
    jnp.int32([640 * wide, 640 * (num_frames + margin - 4)]),
    jnp.asarray(rng.normal(size=(2, num_frames, 2)), jnp.float32),
    jnp.asarray(valid),
    jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
    ExpressionStats(
      jnp.asarray(rng.normal(size=(2, 2)), jnp.float32),
      jnp.asarray(rng.uniform(0.5, 2, size=(2, 2)), jnp.float32),
    ),
  )


def arrays(tree):
  """Copies: the first step gives the memory of its input away."""
  return [np.array(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("mode", expression.MODES)
def test_training_lowers_the_error_of_what_it_predicts(mode):
  stage = make_stage(mode=mode)
  state, key = stage.init(jax.random.key(0)), jax.random.key(1)
  before = stage.evaluate(state, make_batch(), key)
  for index in range(40):
    state, metrics = stage.step(state, make_batch(), key, index=index)
  after = stage.evaluate(state, make_batch(), key)
  assert int(state.step) == 40
  assert np.isfinite(metrics["loss"])
  assert after["expression"] < 0.8 * before["expression"]
  # A zero output layer predicts the mean: the two errors start equal.
  np.testing.assert_allclose(before["expression"], before["of_mean"], rtol=1e-6)


def test_wav2vec2_is_tuned_but_for_its_convolutions():
  stage = make_stage("wav2vec2", mode="teacher_forced")
  state = stage.init(jax.random.key(0))
  published = nnx.state(small_encoder("wav2vec2"), nnx.Param)
  chex.assert_trees_all_equal(
    arrays(state.nets["encoder"].params), arrays(published)
  )
  # Two steps: at the first the zero output layer passes no gradient down.
  for index in range(2):
    state, _ = stage.step(state, make_batch(), jax.random.key(1), index=index)
  params = state.nets["encoder"].params
  chex.assert_trees_all_equal(
    arrays(params["features"]), arrays(published["features"])
  )
  moved = params["layers"]["value"]["kernel"][...]
  assert np.any(moved != published["layers"]["value"]["kernel"][...])


def test_whisper_is_not_in_the_state():
  state = make_stage().init(jax.random.key(0))
  assert set(state.nets) == {"decoder"}


def test_frames_that_are_not_valid_teach_nothing():
  batch = make_batch()
  other = batch._replace(
    expression=jnp.where(batch.valid[..., None] > 0, batch.expression, 1e3),
    waveform=batch.waveform.at[1, -4 * 640 :].set(0.9),
  )
  for mode in expression.MODES:
    stage = make_stage(mode=mode)
    key = jax.random.key(1)
    one, first = stage.step(stage.init(key), batch, key, index=0)
    two, second = stage.step(stage.init(key), other, key, index=0)
    assert first["loss"] == second["loss"]
    chex.assert_trees_all_equal(arrays(one), arrays(two))


def test_sound_counts_where_there_is_no_face_and_beyond_the_window():
  """As in `predict`, which knows the sound before and after each frame."""
  stage = make_stage.__wrapped__()  # Another size: a program of its own.
  state = trained_decoder(stage)
  key, batch = jax.random.key(0), make_batch(margin=2)

  def error(waveform):
    changed = batch._replace(waveform=jnp.asarray(waveform, jnp.float32))
    return float(stage.evaluate(state, changed, key)["expression"])

  own = error(batch.waveform)
  for row, ticks, counts in (
    (0, slice(0, 2), True),  # Before the first frame.
    (0, slice(5, 6), True),  # The frame without a face.
    (0, slice(14, 16), True),  # After the last frame.
    (1, slice(10, 16), False),  # Padding.
  ):
    waveform = np.array(batch.waveform)
    waveform[row, ticks.start * 640 : ticks.stop * 640] *= -2
    assert (error(waveform) != own) == counts, ticks


def test_predict_is_raw_and_equals_the_network_in_one_window():
  stage = make_stage()
  state = stage.init(jax.random.key(0))
  batch = make_batch()
  for index in range(3):
    state, _ = stage.step(state, batch, jax.random.key(1), index=index)
  out = stage.predict(state, batch.waveform[0], batch.identity[0])
  whole = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), batch)._replace(
    expression=jnp.stack([out, out]), valid=jnp.ones_like(batch.valid)
  )
  error = stage.evaluate(state, whole, jax.random.key(2))["expression"]
  # Only float32 rounding lies between (values of order 1, squared).
  assert error < 1e-9


@pytest.mark.parametrize("num_samples", [1, 7680, 7681, 23_000])
def test_predict_takes_speech_of_any_length(num_samples):
  stage = make_stage()
  state = stage.init(jax.random.key(0))
  waveform = jnp.asarray(np.random.default_rng(0).normal(size=num_samples))
  out = stage.predict(
    state, waveform.astype(jnp.float32), jnp.zeros(SPACE.identity_size)
  )
  assert isinstance(out, np.ndarray)
  assert out.shape == (-(-num_samples // 640), SPACE.expression_size)
  # Untrained, it predicts the mean of the data.
  np.testing.assert_allclose(out, np.tile(SPACE.expression_mean, (len(out), 1)))


class Echo(nnx.Module):
  """An encoder whose features are the loudness of each frame: no context."""

  def __init__(self):
    self.config = whisper.Config(width=1)
    self.gain = nnx.Param(jnp.ones(()))

  def __call__(self, waveform, num_frames=None, *, lengths=None, key=None):
    del lengths, key
    frames = waveform.reshape(len(waveform), num_frames, -1)
    return self.gain * jnp.abs(frames).mean(-1, keepdims=True)


def make_echo_stage(context, *, window, margin):
  config = expression.Config(
    model=dataclasses.replace(DECODER, context=context),
    encoder="whisper",
    window=window,
    margin=margin,
  )
  return expression.Expression(
    config,
    SPACE,
    Echo(),
    num_steps=1,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
  )


def trained_decoder(stage):
  """A state whose output layer is not zero any more."""
  state = stage.init(jax.random.key(0))
  used = state.ema.get("decoder", state.nets["decoder"].params)
  kernel = used["expression_out"]["kernel"]
  kernel[...] = jax.random.normal(jax.random.key(5), kernel[...].shape)
  return state


@pytest.mark.parametrize("context", [12, None])
def test_windows_of_an_encoder_without_context_leave_no_trace(context):
  """No border is seen, and the decoder's memory goes on across it."""
  # A state does not depend on the windows: it is made once.
  state = trained_decoder(make_echo_stage(context, window=50, margin=0))

  def predict(window, margin):
    stage = make_echo_stage(context, window=window, margin=margin)
    wave = np.random.default_rng(0).normal(size=50 * 640 - 300)
    return stage.predict(state, np.float32(wave), np.ones(3, np.float32))

  whole = predict(50, 0)
  assert np.ptp(whole) > 0.1
  # A crossfade of equal features, and float32 in another order.
  for window, margin in ((12, 3), (10, 0), (9, 4)):
    np.testing.assert_allclose(predict(window, margin), whole, atol=1e-4)


@pytest.mark.slow
def test_three_hours_take_memory_for_their_result_only():
  stage = make_echo_stage(12, window=500, margin=15)
  state = trained_decoder(stage)
  num_frames = 3 * 3600 * FRAME_RATE
  wave = np.zeros(num_frames * 640, np.float32)
  wave[::7] = 0.5
  stage.predict(state, wave[: 640 * 2000], np.zeros(3, np.float32))
  tracemalloc.start()
  out = stage.predict(state, wave, np.zeros(3, np.float32))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert out.shape == (num_frames, 2) and np.isfinite(out).all()
  # The result, its restored copy and a few windows of sound.
  assert peak < 3 * out.nbytes + 10 * 500 * 640 * 4 < wave.nbytes / 10


def test_lip_term_counts_only_what_moves_the_lips():
  basis = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
  config = expression.Config(
    model=DECODER,
    encoder="whisper",
    weights=expression.Weights(expression=0.0, lips=1.0),
  )
  stage = expression.Expression(
    config,
    SPACE,
    small_encoder("whisper"),
    num_steps=1,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    lip_basis=basis,
  )
  state, batch = stage.init(jax.random.key(0)), make_batch()
  got = stage.evaluate(state, batch, jax.random.key(0))
  # Untrained it predicts the mean; one std of the second coefficient is all
  # that moves the lips, so the term is its mean square.
  error = SPACE.standardise(batch.expression)[..., 1] ** 2
  want = (error * batch.valid).sum(1) / batch.valid.sum(1)
  np.testing.assert_allclose(got["lips"], want.mean(), rtol=1e-5)
  np.testing.assert_allclose(got["loss"], got["lips"], rtol=1e-6)


def test_an_identity_of_ones_own_changes_the_expression():
  """A person who was not in the training data has a style, too."""
  stage = make_stage()
  state = trained_decoder(stage)
  wave = np.float32(np.random.default_rng(1).normal(size=7680))
  one, other = (
    stage.predict(state, wave, np.full(3, z, np.float32)) for z in (0.0, 2.0)
  )
  assert np.abs(one - other).max() > 1e-3


def test_memory_of_long_speech_does_not_grow():
  """Only the result grows: what runs is compiled for a window, once."""
  stage = make_stage()
  state = trained_decoder(stage)
  wave = np.float32(np.random.default_rng(1).normal(size=640 * 400))
  stage.predict(state, wave[: 640 * 40], np.zeros(3, np.float32))
  # More would trace again, which conftest.py forbids.
  stage.predict(state, wave, np.zeros(3, np.float32))


@pytest.mark.slow
def test_a_batch_shared_out_to_two_devices_learns_the_same():
  states = []
  for num in (1, 2):
    config = expression.Config(
      model=dataclasses.replace(DECODER, dropout=0.0), encoder="whisper"
    )
    stage = expression.Expression(
      config,
      SPACE,
      small_encoder("whisper"),
      num_steps=10,
      mesh=sharding.make_mesh(devices=jax.devices()[:num]),
    )
    state = stage.init(jax.random.key(0))
    batch = sharding.shard_batch(
      stage.mesh, jax.tree.map(np.asarray, make_batch())
    )
    for index in range(2):
      state, _ = stage.step(state, batch, jax.random.key(1), index=index)
    states.append(arrays(state.nets["decoder"].params))
  # Sums in another order; Adam\'s first steps are of the rate, 1e-4.
  chex.assert_trees_all_close(*states, rtol=1e-7, atol=2e-6)


def test_refuses_lips_without_a_basis():
  config = expression.Config(weights=expression.Weights(lips=1.0))
  with pytest.raises(ValueError, match="needs a lip_basis"):
    expression.Expression(
      config,
      SPACE,
      small_encoder("whisper"),
      num_steps=1,
      mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    )


def test_refuses_an_unknown_mode_and_a_window_of_margins():
  for changes, message in (
    ({"mode": "guess"}, "mode='guess' must be one of"),
    ({"window": 10, "margin": 5}, "margin=5 must be below half"),
  ):
    config = expression.Config(**changes)
    with pytest.raises(ValueError, match=message):
      expression.Expression(
        config,
        SPACE,
        small_encoder("whisper"),
        num_steps=1,
        mesh=sharding.make_mesh(devices=jax.devices()[:1]),
      )


@pytest.mark.parametrize(
  "encoder",
  ["whisper", pytest.param("wav2vec2", marks=pytest.mark.slow)],
)
def test_a_step_in_parts_at_half_precision_keeps_the_state_as_it_is(encoder):
  made = make_stage(encoder)
  stage = expression.Expression(
    dataclasses.replace(
      made.config, accumulate=2, dtype="bfloat16", remat="all"
    ),
    SPACE,
    small_encoder(encoder),
    num_steps=100,
    mesh=made.mesh,
  )
  state = jax.eval_shape(stage.init_state, jax.random.key(0))
  args = state, make_batch(), jax.random.key(1)
  stepped, _ = stage.compiled[0].lower(*args).out_info
  chex.assert_trees_all_equal_shapes_and_dtypes(state, stepped)


def test_a_relative_network_predicts_around_the_speakers_own_mean():
  stage = make_stage(relative=True)
  batch = make_batch()
  state, key = stage.init(jax.random.key(0)), jax.random.key(1)
  # Another rest, and half the motion: nothing else is learnt from it.
  mean, std = batch.stats
  moved = batch._replace(
    expression=0.5 * (batch.expression - mean[:, None]) + 2.0,
    stats=ExpressionStats(0 * mean + 2.0, 0.5 * std),
  )
  one, other = (stage.evaluate(state, x, key) for x in (batch, moved))
  chex.assert_trees_all_close(one, other, rtol=1e-4)
  wave, identity = np.asarray(batch.waveform[0]), np.asarray(batch.identity[0])
  stats = ExpressionStats(np.zeros(2, np.float32), np.ones(2, np.float32))
  still = stage.predict(state, wave, identity, stats)
  smiling = stats._replace(mean=np.float32([1, -1]))
  np.testing.assert_allclose(
    stage.predict(state, wave, identity, smiling) - still,
    np.tile([1.0, -1.0], (len(still), 1)),
    atol=1e-5,
  )
  lively = stats._replace(std=3 * stats.std)
  np.testing.assert_allclose(
    stage.predict(state, wave, identity, lively), 3 * still, rtol=1e-4
  )
  with pytest.raises(ValueError, match="needs the person's"):
    stage.predict(state, wave, identity)
