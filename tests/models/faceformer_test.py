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
  kernel = jax.random.normal(jax.random.key(9), (16, 4)) * 0.5
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
  expression = jnp.zeros((*audio.shape[:2], 4))
  for frame in range(audio.shape[1]):
    out = model.teacher_forced(audio, identity, expression)
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


def test_gradients_flow_through_what_is_fed_back():
  model = make()
  audio, identity = inputs()

  def last(function):
    return jax.grad(lambda x: jnp.sum(function(model, x, identity)[:, -1]))

  got = last(lambda m, x, i: m.generate(x, i))(audio)
  np.testing.assert_allclose(got, last(slow_loop)(audio), rtol=1e-4, atol=1e-5)
  assert np.all(np.any(got != 0, axis=-1))


def test_frames_know_only_the_past():
  model = make()
  audio, identity = inputs()
  other = audio.at[:, 6:].add(1.0)
  one, two = model.generate(audio, identity), model.generate(other, identity)
  np.testing.assert_array_equal(one[:, :6], two[:, :6])
  assert np.all(np.any(one[:, 6:] != two[:, 6:], axis=-1))


def test_teacher_forcing_never_shows_the_frame_to_be_predicted():
  model = make()
  audio, identity = inputs()
  true = jax.random.normal(jax.random.key(1), (2, 11, 4))
  other = true.at[:, 5:].add(1.0)
  one = model.teacher_forced(audio, identity, true)
  two = model.teacher_forced(audio, identity, other)
  np.testing.assert_array_equal(one[:, :6], two[:, :6])
  assert np.any(one[:, 6] != two[:, 6])


def test_cross_attention_has_one_key_so_its_query_and_key_do_nothing():
  model = make()
  graphdef, params = nnx.split(model, nnx.Param)

  def total(params):
    return jnp.sum(nnx.merge(graphdef, params).generate(*inputs()) ** 2)

  gradients = jax.grad(total)(params)["layer"]["cross_attention"]
  for name in ("query", "key"):
    for leaf in jax.tree.leaves(gradients[name]):
      np.testing.assert_array_equal(leaf, 0)
  assert np.any(gradients["value"]["kernel"][...] != 0)
  before = model.generate(*inputs())
  for linear in (
    model.layer.cross_attention.query,
    model.layer.cross_attention.key,
  ):
    linear.kernel[...] = linear.kernel[...] + 1.0
  np.testing.assert_array_equal(model.generate(*inputs()), before)


def test_two_at_once_equal_one_by_one():
  model = make()
  audio, identity = inputs()
  both = model.generate(audio, identity)
  for i in range(2):
    np.testing.assert_allclose(
      both[i : i + 1],
      model.generate(audio[i : i + 1], identity[i : i + 1]),
      rtol=1e-5,  # Other matmul shapes sum in another order.
      atol=1e-5,
    )


def test_dropout_needs_a_key_and_is_of_that_key():
  model = make(dropout=0.5)
  key = jax.random.key(3)
  first = model.generate(*inputs(), key=key)
  np.testing.assert_array_equal(first, model.generate(*inputs(), key=key))
  assert np.any(first != model.generate(*inputs()))
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


def test_starts_by_saying_the_mean():
  model = faceformer.ExpressionDecoder(CONFIG, rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(model.generate(*inputs()), 0)


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
