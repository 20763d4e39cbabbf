"""The tri-plane stage: its phases, its corrections, what it begins from."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.geometry import cameras as camera_geometry
from pir_jax.models import dual_discriminator, renderer, triplane_generator, vgg
from pir_jax.runtime import optim, sharding
from pir_jax.stages import frame_corrections, gan, train_state, triplane
from pir_jax.types import Cameras, FaceBatch, FaceSpace, InputError

SPACE = FaceSpace(
  3, ("jaw", "lips"), np.float32([0.3, -0.2]), np.float32([0.5, 2.0])
)
MODEL = triplane_generator.Config(
  channel_base=64,
  channel_max=8,
  w_size=8,
  plane_resolution=8,
  plane_channels=4,
  feature_resolution=8,
  resolution=32,
  sr_channels=(8, 8),
  renderer=renderer.Config(num_coarse=4, num_fine=4, hidden_size=8),
)
KEY = jax.random.key(0)


@functools.cache
def lpips():
  return vgg.Lpips("vgg", num_layers=1, rngs=nnx.Rngs(0))


def make_stage(**changes):
  config = triplane.Config(
    model=MODEL,
    optim=optim.Config(learning_rate=0.01, b1=0.0, b2=0.99),
    perceptual_layers=1,
    **changes,
  )
  return triplane.TriPlane(
    config,
    SPACE,
    lpips(),
    num_steps=100,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
  )


@functools.cache  # A stage holds no state: one compilation serves many tests.
def default_stage():
  return make_stage()


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  pose = camera_geometry.look_at(
    jnp.array([[0.0, 0.1, 2.7], [0.3, 0.0, 2.6]]),
    jnp.zeros((2, 3)),
    jnp.array([[0.0, 1.0, 0.0]] * 2),
  )
  intrinsics = jnp.tile(
    jnp.array([[2.5, 0, 0.5], [0, 2.5, 0.5], [0, 0, 1.0]]), (2, 1, 1)
  )
  rows, columns = np.mgrid[:32, :32] / 31 - 0.5
  head = np.float32(np.hypot(rows, columns) < 0.4)[None, ..., None]
  head = np.repeat(head, 2, 0)
  image = rng.uniform(-1, 1, (2, 1, 1, 3)) * np.ones((2, 32, 32, 3))
  batch = FaceBatch(
    image=np.float32(image),
    mask=head,
    head=head,
    mouth=0.1 * head,
    eyes=0.0 * head,
    cameras=Cameras(np.asarray(pose), np.asarray(intrinsics)),
    identity=np.zeros((2, 3), np.float32),
    expression=np.float32(rng.normal(size=(2, 2))),
    index=np.int32([1, 3]),
  )
  return jax.tree.map(jnp.asarray, batch)


def copies(tree):
  """The first step gives the memory of its input away."""
  return [np.array(x) for x in jax.tree.leaves(tree)]


def moved(before, after):
  return [np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True)]


def test_training_brings_the_image_nearer_and_its_psnr_up():
  stage, batch = default_stage(), make_batch()
  state = stage.init(KEY)
  before = stage.evaluate(state, batch, KEY)
  named = []
  for index in range(30):
    state, metrics = stage.step(state, batch, KEY, index=index)
    named.append("variation" in metrics)
  after = stage.evaluate(state, batch, KEY)
  assert int(state.step) == 30
  assert np.isfinite(metrics["loss"])
  assert after["image"] < 0.7 * before["image"]
  assert after["psnr"] > before["psnr"] + 2
  assert set(state.nets) == {"generator"}
  # The density's smoothness is stepped on every fourth step only.
  assert named == [index % 4 == 0 for index in range(30)]


@pytest.mark.slow
def test_an_adversarial_step_moves_both_networks():
  stage = make_stage(
    weights=triplane.Weights(adversarial=0.1, variation=0.0),
    gan=gan.Config(
      model=dual_discriminator.Config(
        channel_base=64, channel_max=8, map_depth=1
      ),
      start=4,
      r1_every=2,
      blur_steps=10,
    ),
  )
  state, batch = stage.init(KEY), make_batch()
  discriminator = copies(state.nets["discriminator"].params)
  state, metrics = stage.step(state, batch, KEY, index=4)
  assert {
    "discriminator_real",
    "discriminator_fake",
    "adversarial",
    "r1",
  } <= set(metrics)
  chex.assert_tree_all_finite(metrics)
  assert any(moved(discriminator, copies(state.nets["discriminator"].params)))
  state, metrics = stage.step(state, batch, KEY, index=5)
  assert "r1" not in metrics and "discriminator_real" in metrics


def test_the_discriminator_sees_less_the_earlier_it_is():
  config = gan.Config(
    model=dual_discriminator.Config(
      channel_base=64, channel_max=8, map_depth=1
    ),
    blur=4.0,
    blur_steps=10,
  )
  play = gan.DualGan(config, resolution=32, num_steps=10)
  net, batch = jax.jit(play.new_net)(KEY), make_batch()
  # One program, not one for each operation.
  logits = jax.jit(play.logits, static_argnames="real")
  rows, columns = np.mgrid[:32, :32]
  finest = np.float32((-1) ** (rows + columns))[None, ..., None]
  pairs = [
    gan.Pair(batch.image + s * finest, batch.image[:, ::4, ::4]) for s in (0, 1)
  ]

  def gap(step):
    one, other = (
      logits(net, pair, batch.cameras, jnp.int32(step)) for pair in pairs
    )
    return float(jnp.abs(one - other).max())

  # A chessboard is what a blur takes away; at the end nothing is blurred.
  assert gap(0) < 0.3 * gap(10)
  assert gap(10) == gap(1000)

  def raw_gap(step, real):
    one, other = (
      logits(net, pair, batch.cameras, jnp.int32(step), real=real)
      for pair in (
        gan.Pair(batch.image, batch.image[:, ::4, ::4] + s * finest[:, :8, :8])
        for s in (0, 1)
      )
    )
    return float(jnp.abs(one - other).max())

  # EG3D blurs the raw image of a frame, and not one that is made.
  assert raw_gap(0, True) < 0.3 * raw_gap(0, False)
  assert raw_gap(10, True) == pytest.approx(raw_gap(10, False), rel=1e-5)


@pytest.mark.slow
def test_corrections_are_learnt_for_frames_that_were_seen():
  stage = make_stage(
    refinement=frame_corrections.Config(enabled=True, num_frames=5),
    weights=triplane.Weights(variation=0.0),
  )
  state, batch = stage.init(KEY), make_batch()
  for index in range(2):
    state, metrics = stage.step(state, batch, KEY, index=index)
  learnt = state.nets["refinement"].params
  for name, table in learnt.items():
    seen = np.abs(np.asarray(table)).max(1) > 0
    np.testing.assert_array_equal(seen, [False, True, False, True, False], name)
  assert metrics["refinement"] > 0


def test_a_correction_common_to_all_frames_changes_nothing():
  config = frame_corrections.Config(enabled=True, num_frames=5)
  zero = frame_corrections.zeros(config, 2)
  shifted = jax.tree.map(lambda x: x + 0.7, zero)
  batch = make_batch()
  plain, terms = frame_corrections.inputs(config, None, SPACE, batch)
  assert not terms
  for learnt in (zero, shifted):
    given, _ = frame_corrections.inputs(config, learnt, SPACE, batch)
    for a, b in zip(given, plain, strict=True):
      # float32 sums.
      np.testing.assert_allclose(a, b, atol=1e-6)


def test_corrections_have_their_units():
  config = frame_corrections.Config(enabled=True, num_frames=5)
  learnt = frame_corrections.zeros(config, 2)
  learnt["translation"] = learnt["translation"].at[1].set([1.0, 0.0, 0.0])
  given, terms = frame_corrections.inputs(config, learnt, SPACE, make_batch())
  plain, _ = frame_corrections.inputs(config, None, SPACE, make_batch())
  shift = (given.cameras - plain.cameras)[:, :16].reshape(2, 4, 4)[:, :3, 3]
  # The mean over five frames is taken off.
  want = config.translation * np.array([[0.8, 0, 0], [-0.2, 0, 0]])
  np.testing.assert_allclose(shift, want, atol=1e-6)
  # One of the 8 numbers of the first frame, squared.
  np.testing.assert_allclose(terms["refinement"], [1 / 8, 0.0])


def test_a_fresh_run_begins_from_given_weights_but_for_the_mapping():
  model = dataclasses.replace(MODEL, identity_size=3, expression_size=2)
  given = triplane_generator.TriPlaneGenerator(model, rngs=nnx.Rngs(7))
  arrays = train_state.named("generator", nnx.state(given, nnx.Param), {})
  scratch = default_stage().init(KEY)
  state = train_state.begin_from(
    default_stage().init(KEY),
    arrays,
    "given",
    fresh=("generator/params/mapping/", "generator/buffers/"),
  )
  params = state.nets["generator"].params
  for name in ("backbone", "renderer", "upsampler"):
    want = copies(nnx.state(given, nnx.Param)[name])
    assert not any(moved(copies(params[name]), want)), name
  own = scratch.nets["generator"].params["mapping"]
  assert not any(moved(copies(params["mapping"]), copies(own)))
  assert not any(moved(copies(state.ema["generator"]), copies(params)))


def test_arrays_of_another_shape_or_missing_are_named():
  state = default_stage().init(KEY)
  arrays = dict(train_state.learnt(state))
  name = next(name for name in arrays if arrays[name].ndim == 2)
  arrays[name] = np.zeros((1, 2), np.float32)
  with pytest.raises(InputError, match=f"{name} .1x2 there, "):
    train_state.begin_from(state, arrays, "another")
  del arrays[name]
  with pytest.raises(InputError, match=f"another has.*{name} .missing there"):
    train_state.begin_from(state, arrays, "another")


def test_corrections_without_a_number_of_frames_are_refused():
  with pytest.raises(ValueError, match="num_frames=0"):
    make_stage(refinement=frame_corrections.Config(enabled=True))


@pytest.mark.slow
def test_steps_in_parts_at_half_precision_keep_the_state_as_it_is():
  stage = make_stage(
    weights=triplane.Weights(adversarial=0.1),
    gan=gan.Config(
      model=dual_discriminator.Config(
        channel_base=64, channel_max=8, map_depth=1
      )
    ),
    accumulate=2,
    dtype="bfloat16",
    remat="all",
  )
  state = jax.eval_shape(stage.init_state, KEY)
  assert len(stage.compiled) == 5
  for phase in stage.compiled:
    stepped, _ = phase.lower(state, make_batch(), KEY).out_info
    chex.assert_trees_all_equal_shapes_and_dtypes(state, stepped)
