"""The expression decoder: its scan, its masks, its independence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import faceformer

CONFIG = faceformer.Config(
  identity_size=3,
  expression_size=4,
  audio_size=5,
  width=16,
  num_heads=4,
  ffn=24,
  period=4,
)


def make(**changes):
  """A decoder whose output layer is not zero."""
  config = dataclasses.replace(CONFIG, **changes)
  model = faceformer.ExpressionDecoder(config, rngs=nnx.Rngs(0))
  kernel = jax.random.normal(jax.random.key(9), (config.width, 4)) * 0.5
  model.expression_out.kernel[...] = kernel
  return model


def inputs(batch=2, num_frames=11):
  rng = np.random.default_rng(0)
  return (
    jnp.asarray(rng.normal(size=(batch, num_frames, 5)), jnp.float32),
    jnp.asarray(rng.normal(size=(batch, 3)), jnp.float32),
  )


def slow_loop(model, audio, identity):
  """FaceFormer's own way: the whole decoder anew for every frame."""
  forward = jax.jit(model.teacher_forced)
  expression = jnp.zeros((*audio.shape[:2], 4))
  for frame in range(audio.shape[1]):
    out = forward(audio, identity, expression)
    expression = expression.at[:, frame].set(out[:, frame])
  return expression


@pytest.mark.parametrize("context", [None, 3, 100])
def test_cached_scan_equals_running_the_whole_decoder_each_frame(context):
  model = make(context=context)
  np.testing.assert_allclose(
    model.generate(*inputs()),
    slow_loop(model, *inputs()),
    rtol=1e-5,  # Float32, 11 frames fed back into one another.
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ("context", "key"), [(None, None), (3, jax.random.key(4))]
)
def test_any_cut_into_pieces_equals_one_run(context, key):
  model = make(context=context)
  audio, identity = inputs()
  want = jax.jit(model.generate)(audio, identity, key=key)
  extend = jax.jit(model.extend)
  for sizes in ([1, 10], [5, 1, 5], [1] * 11):
    carry = model.start(identity, num_frames=11 if context is None else None)
    parts, rest = [], audio
    for size in sizes:
      carry, part = extend(carry, rest[:, :size], key=key)
      parts.append(part)
      rest = rest[:, size:]
    assert carry.frame == 11
    np.testing.assert_allclose(
      jnp.concatenate(parts, axis=1),
      want,
      rtol=1e-5,  # Other matmul shapes sum in another order.
      atol=1e-5,
    )


def test_a_million_frames_on_the_phase_is_the_same():
  """Once the cache is full, only frame number modulo the period matters."""
  model = make(context=5)
  audio, identity = inputs()
  extend = jax.jit(model.extend)
  carry, _ = extend(model.start(identity), audio[:, :6])
  # A multiple of the period, 4, and of the cache, 5. Above 2^24, where float32
  # no longer tells neighbours apart.
  for far in (1_000_000, 20_000_000):
    later = carry._replace(frame=carry.frame + far)
    one, here = extend(carry, audio[:, 5:])
    two, there = extend(later, audio[:, 5:])
    np.testing.assert_array_equal(here, there)
    assert two.frame - one.frame == far
  off = carry._replace(frame=carry.frame + 5)
  assert np.any(here != extend(off, audio[:, 5:])[1])


def test_start_needs_a_bound():
  model = make(context=None)
  audio, identity = inputs()
  with pytest.raises(ValueError, match="num_frames=None with context=None"):
    model.start(identity)
  with pytest.raises(ValueError, match="num_frames=0 with context=None"):
    model.generate(audio[:, :0], identity)


@pytest.mark.parametrize("context", [None, 20])
def test_frames_beyond_the_promised_ones_are_not_numbers(context):
  model = make(context=context)
  audio, identity = inputs()
  _, out = model.extend(model.start(identity, num_frames=7), audio)
  np.testing.assert_allclose(
    out[:, :7],
    model.generate(audio, identity)[:, :7],
    rtol=1e-5,  # Another cache size sums in another order.
    atol=1e-5,
  )
  assert np.all(np.isnan(out[:, 7:]))


def compile_extend(model, num_frames):
  """The compiled piece of so many frames, and the parameters it takes."""
  graphdef, params = nnx.split(model)
  carry = jax.eval_shape(model.start, jnp.zeros((1, 3)))
  audio = jax.ShapeDtypeStruct((1, num_frames, 5), jnp.float32)
  extend = jax.jit(lambda p, c, a: nnx.merge(graphdef, p).extend(c, a))
  return extend.lower(params, carry, audio).compile(), params


def test_one_program_runs_a_sequence_of_any_length():
  model = make(context=100)
  audio, identity = inputs(1, 10_000)
  whole, params = compile_extend(model, 10_000)
  piece, _ = compile_extend(model, 1000)
  carry, parts = model.start(identity), []
  for start in range(0, 10_000, 1000):
    # Compiled for the first carry: a cache that grew would be refused.
    carry, part = piece(params, carry, audio[:, start : start + 1000])
    parts.append(part)
  _, want = whole(params, model.start(identity), audio)
  np.testing.assert_allclose(
    jnp.concatenate(parts, axis=1),
    want,
    rtol=1e-5,  # Other matmul shapes sum in another order.
    atol=1e-5,
  )
  long, short = (c.memory_analysis().temp_size_in_bytes for c in (whole, piece))
  # Nothing is kept of a frame but a few maps of its audio, of 16 floats each;
  # what it sees of the past is 200 such.
  assert long - short <= 9000 * 8 * 16 * 4


def test_gradients_flow_through_what_is_fed_back():
  model = make()
  audio, identity = inputs()

  def last(function):
    return jax.jit(
      jax.grad(lambda x: jnp.sum(function(model, x, identity)[:, -1]))
    )

  got = last(lambda m, x, i: m.generate(x, i))(audio)
  np.testing.assert_allclose(got, last(slow_loop)(audio), rtol=1e-4, atol=1e-5)
  assert np.all(np.any(got != 0, axis=-1))


def test_frames_know_only_the_past():
  model = make()
  audio, identity = inputs()
  other = audio.at[:, 6:].add(1.0)
  generate = jax.jit(model.generate)
  one, two = generate(audio, identity), generate(other, identity)
  np.testing.assert_array_equal(one[:, :6], two[:, :6])
  assert np.all(np.any(one[:, 6:] != two[:, 6:], axis=-1))


def test_teacher_forcing_never_shows_the_frame_to_be_predicted():
  model = make()
  audio, identity = inputs()
  true = jax.random.normal(jax.random.key(1), (2, 11, 4))
  other = true.at[:, 5:].add(1.0)
  forward = jax.jit(model.teacher_forced)
  one = forward(audio, identity, true)
  two = forward(audio, identity, other)
  np.testing.assert_array_equal(one[:, :6], two[:, :6])
  assert np.any(one[:, 6] != two[:, 6])


@pytest.mark.parametrize(
  ("mode", "key"),
  [
    ("generate", None),
    ("generate", jax.random.key(4)),
    ("teacher_forced", None),
  ],
)
def test_cross_attention_has_one_key_so_its_query_and_key_do_nothing(mode, key):
  model = make()
  run_inputs = inputs()
  if mode == "teacher_forced":
    run_inputs += (jax.random.normal(jax.random.key(1), (2, 11, 4)),)
  graphdef, params = nnx.split(model, nnx.Param)

  def run(params):
    return getattr(nnx.merge(graphdef, params), mode)(*run_inputs, key=key)

  run = jax.jit(run)
  gradients = jax.jit(jax.grad(lambda p: jnp.sum(run(p) ** 2)))(params)
  gradients = gradients["layer"]["cross_attention"]
  for name in ("query", "key"):
    for leaf in jax.tree.leaves(gradients[name]):
      np.testing.assert_array_equal(leaf, 0)
  for name in ("value", "out"):
    for leaf in jax.tree.leaves(gradients[name]):
      assert np.any(leaf != 0)
  before = run(params)
  attention = model.layer.cross_attention
  for linear in (attention.query, attention.key):
    linear.kernel[...] = linear.kernel[...] + 1.0
  np.testing.assert_array_equal(run(nnx.state(model, nnx.Param)), before)


@pytest.mark.parametrize(
  ("num_frames", "key"),
  [
    pytest.param(64, None, marks=pytest.mark.slow),  # 8 blocks of 8.
    (11, jax.random.key(4)),  # 3 of 3, and 2 more.
  ],
)
def test_remat_changes_the_memory_and_nothing_else(num_frames, key):
  audio, identity = inputs(num_frames=num_frames)
  results, bytes_used = [], []
  for remat in (False, True):
    graphdef, params = nnx.split(make(remat=remat, width=32), nnx.Param)

    def total(params, graphdef=graphdef):
      model = nnx.merge(graphdef, params)
      return jnp.mean(model.generate(audio, identity, key=key) ** 2)

    compiled = jax.jit(jax.value_and_grad(total)).lower(params).compile()
    results.append(jax.tree.leaves(compiled(params)))
    bytes_used.append(compiled.memory_analysis().temp_size_in_bytes)
  for one, two in zip(*results, strict=True):
    # Sums over frames in another order.
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
  # Keys and values, batch, frames, width, bytes of a float.
  cache = 2 * 2 * num_frames * 32 * 4
  assert bytes_used[0] > num_frames * cache
  if num_frames == 64:
    # A cache a block, one a frame of a block, and as much again for the rest.
    assert bytes_used[1] < 2 * (8 + 8) * cache


def test_two_at_once_equal_one_by_one():
  model = make()
  audio, identity = inputs()
  generate = jax.jit(model.generate)
  both = generate(audio, identity)
  for i in range(2):
    np.testing.assert_allclose(
      both[i : i + 1],
      generate(audio[i : i + 1], identity[i : i + 1]),
      rtol=1e-5,  # Other matmul shapes sum in another order.
      atol=1e-5,
    )


def test_padding_at_the_end_changes_nothing_before_it():
  model = make(context=4)
  audio, identity = inputs()
  lengths = (11, 6)
  padded = jnp.where(
    jnp.arange(11)[:, None] < jnp.asarray(lengths)[:, None, None], audio, 0.0
  )
  generate = jax.jit(model.generate)
  both = generate(padded, identity)
  for i, length in enumerate(lengths):
    alone = generate(audio[i : i + 1, :length], identity[i : i + 1])
    np.testing.assert_allclose(
      both[i, :length],
      alone[0],
      rtol=1e-5,  # Other matmul shapes sum in another order.
      atol=1e-5,
    )


def test_dropout_needs_a_key_and_is_of_that_key():
  model = make(dropout=0.5)
  key = jax.random.key(3)
  generate = jax.jit(model.generate)
  first = generate(*inputs(), key=key)
  np.testing.assert_array_equal(first, generate(*inputs(), key=key))
  assert np.any(first != generate(*inputs()))
  # A zero rate is exactly the deterministic network.
  still = make(dropout=0.0)
  np.testing.assert_array_equal(
    still.generate(*inputs(), key=key), still.generate(*inputs())
  )


def test_positions_repeat_with_the_period():
  positions = faceformer.periodic_positions(
    jnp.arange(1000), width=8, period=25
  )
  np.testing.assert_array_equal(positions[25:], positions[:-25])
  np.testing.assert_array_equal(positions[0], [0, 1] * 4)


def test_starts_by_predicting_the_mean():
  model = faceformer.ExpressionDecoder(CONFIG, rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(model.generate(*inputs()), 0)


@pytest.mark.parametrize("style", [True, False])
def test_without_a_style_the_face_does_not_change_how_it_speaks(style):
  model = make(style=style)
  audio = jax.random.normal(jax.random.key(0), (2, 6, CONFIG.audio_size))
  audio = audio.at[1].set(audio[0])
  identity = jax.random.normal(jax.random.key(1), (2, CONFIG.identity_size))
  for out in (
    model.generate(audio, identity),
    model.teacher_forced(
      audio, identity, jnp.ones((2, 6, CONFIG.expression_size))
    ),
  ):
    assert bool(jnp.allclose(out[0], out[1], atol=1e-6)) is not style


def test_has_the_size_of_the_paper():
  model = nnx.eval_shape(
    lambda: faceformer.ExpressionDecoder(faceformer.Config(), rngs=nnx.Rngs(0))
  )
  sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model))]
  # The layer, and the maps 1024->1024, 80->1024 (no bias), 64->1024, 1024->64.
  assert sum(sizes) == 12_600_320 + 1_263_680


def test_refuses_heads_that_do_not_divide_the_width():
  with pytest.raises(ValueError, match="width=16 must be a multiple of 3"):
    make(num_heads=3)
