"""The inpainting stage: what it sees, what it trains, what it is steady in."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import (
  inpainting,
  patch_discriminator,
  renderer,
  triplane_generator,
  vgg,
)
from pir_jax.runtime import sharding
from pir_jax.stages import conditioning
from pir_jax.stages import inpainting as stage_lib
from pir_jax.types import Cameras, ConfigError, FaceBatch, FaceSpace

KEY = jax.random.key(0)
SIDE = 16
SPACE = FaceSpace(
  2, ("jaw", "lips"), np.float32([0.3, -0.2]), np.float32([0.5, 2.0])
)


@functools.cache
def pretrained():
  config = triplane_generator.Config(
    identity_size=2,
    expression_size=2,
    channel_base=32,
    channel_max=4,
    w_size=4,
    constant_side=8,
    plane_resolution=16,
    plane_channels=3,
    feature_resolution=4,
    resolution=SIDE,
    sr_channels=(4, 4),
    renderer=renderer.Config(num_coarse=3, num_fine=0, hidden_size=4),
  )
  return _filled(
    lambda: triplane_generator.TriPlaneGenerator(config, rngs=nnx.Rngs(0))
  )


@functools.cache
def perceptual():
  return _filled(lambda: vgg.Lpips("vgg", num_layers=1, rngs=nnx.Rngs(0)))


def _filled(make):
  """Filled from numpy: drawing in JAX compiles once a shape."""
  graph, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(1)
  return nnx.merge(
    graph,
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), state
    ),
  )


@functools.cache
def make_stage(joint=False, economy=(), resolution=SIDE, **weights):
  config = stage_lib.Config(
    model=inpainting.Config(
      channels=4, num_downsamples=1, num_global_blocks=1, num_local_blocks=1
    ),
    discriminator=patch_discriminator.Config(
      channels=4, num_layers=1, num_scales=2
    ),
    weights=stage_lib.Weights(**weights),
    perceptual_layers=1,
    joint=joint,
    **dict(economy),
  )
  return stage_lib.Inpainting(
    config,
    SPACE,
    perceptual(),
    pretrained(),
    num_steps=10,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    resolution=resolution,
    predicted_expression=np.zeros((5, 2), np.float32),
  )


def make_batch():
  rng = np.random.default_rng(0)
  pose = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  pose[2, 3] = 2.7
  intrinsics = np.float32([[3, 0, 0.5], [0, 3, 0.5], [0, 0, 1]])
  mask = np.zeros((2, SIDE, SIDE, 1), np.float32)
  mask[:, 4:12, 4:12] = 1
  return FaceBatch(
    image=rng.uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32),
    mask=mask,
    head=mask,
    mouth=mask,
    eyes=mask,
    cameras=Cameras(np.stack([pose] * 2), np.stack([intrinsics] * 2)),
    identity=np.zeros((2, 2), np.float32),
    expression=rng.normal(size=(2, 2)).astype(np.float32),
    index=np.int32([1, 4]),
  )


def test_nothing_comes_through_the_mask_not_even_nan():
  image = jax.random.uniform(KEY, (2, 8, 8, 3), minval=-1.0)
  mask = jnp.zeros((2, 8, 8, 1)).at[:, 2:6, 2:6].set(1.0)
  # Half covered pixels count as covered.
  mask = mask.at[:, 1, 1].set(0.01)
  hidden = jnp.where(mask > 0, jnp.nan, image)
  for blank in (0.0, -1.0):
    seen = conditioning.masked(image, mask, blank)
    np.testing.assert_array_equal(
      seen, conditioning.masked(hidden, mask, blank)
    )
    assert float(jnp.abs(seen[:, 3, 3] - blank).max()) == 0.0
    np.testing.assert_array_equal(seen[:, 7], image[:, 7])


def test_stage_2_is_trained_along_only_where_it_is_asked_for():
  state = jax.eval_shape(make_stage().init_state, KEY)
  assert set(state.nets) == {"inpainting", "discriminator"}
  assert set(state.ema) == {"inpainting"}


@pytest.mark.slow
def test_a_joint_step_trains_all_three_from_where_stage_2_was():
  # A step without the third network is taken in experiments_test.
  stage = make_stage(joint=True)
  state = stage.init(KEY)
  names = {"inpainting", "discriminator", "generator"}
  assert set(state.nets) == names and set(state.ema) == names - {
    "discriminator"
  }
  before = jax.tree.map(np.array, (state, stage.frozen))
  chex.assert_trees_all_equal(
    before[0].nets["generator"].params, before[1]["generator"][0]
  )
  for index in range(2):  # The second one is not traced again.
    state, metrics = stage.step(state, make_batch(), KEY, index=index)
  chex.assert_tree_all_finite(metrics)
  weights = {f for f in stage_lib.Weights.__dataclass_fields__}
  reported = {
    f"{what}/{name}" for what in ("gradient_norm", "bad") for name in names
  }
  assert (
    set(metrics) == weights - {"lpips"} | {"loss", "discriminator"} | reported
  )
  for name in names:
    change = jax.tree.map(
      lambda a, b: float(np.abs(a - b).max()),
      before[0].nets[name].params,
      state.nets[name].params,
    )
    assert max(jax.tree.leaves(change)) > 0, name
  chex.assert_trees_all_equal(before[1], stage.frozen)


def test_a_frame_is_inpainted_the_same_beside_any_other():
  stage = make_stage()
  state, batch = stage.init(KEY), make_batch()
  given = (batch.image, batch.mask)
  conditions = (batch.identity, batch.expression, batch.cameras)
  turned = jax.tree.map(lambda x: x[::-1], (given, conditions))
  first = stage.inpaint(state, *given, conditioning.Conditions(*conditions))
  second = stage.inpaint(state, *turned[0], conditioning.Conditions(*turned[1]))
  np.testing.assert_allclose(first, second[::-1], atol=1e-6)
  assert float(jnp.abs(first[0] - first[1]).max()) > 1e-3


def test_a_face_alone_is_stage_2s_own():
  stage = make_stage()
  batch = make_batch()
  conditions = conditioning.Conditions(
    batch.identity, batch.expression, batch.cameras
  )
  image = stage.render(stage.init(KEY), conditions)
  graph, params = nnx.split(pretrained())
  want = jax.jit(lambda s, x: nnx.merge(graph, s)(*x).image)(
    params, conditioning.inputs(SPACE, *jax.tree.map(jnp.asarray, conditions))
  )
  np.testing.assert_allclose(image, np.clip(want, -1, 1), atol=1e-6)


def test_stage_2_is_rendered_in_proportion_to_the_frames():
  """Frames of twice the side meet a feature image of twice the side."""
  stage = make_stage(resolution=2 * SIDE)
  state, batch = stage.init(KEY), make_batch()
  conditions = conditioning.Conditions(
    batch.identity, batch.expression, batch.cameras
  )
  image, mask = (x.repeat(2, 1).repeat(2, 2) for x in (batch.image, batch.mask))
  large = stage.inpaint(state, image, mask, conditions)
  assert large.shape == image.shape
  with pytest.raises(ConfigError, match="meets a feature image of"):
    stage.inpaint(state, batch.image, batch.mask, conditions)


def test_a_discriminator_without_weight_is_not_stepped():
  stage = make_stage(adversarial=0.0, feature_matching=0.0)
  state = jax.eval_shape(stage.init_state, KEY)
  reported = stage.compiled[0].lower(state, make_batch(), KEY).out_info[1]
  assert not [name for name in reported if "discriminator" in name]


def test_a_discriminator_of_crops_sees_the_mouth_and_nothing_else():
  economy = dict(
    perceptual_size=8, perceptual_at_mouth=1.0, adversarial_crops=True
  )
  stage = make_stage(economy=tuple(economy.items()))
  batch = make_batch()
  mouth = np.zeros_like(batch.mask)
  mouth[:, 2, 2] = 1  # Crops about it are the first eight rows and columns.
  batch = batch._replace(
    mask=np.ones_like(mouth), mouth=mouth, eyes=np.zeros_like(mouth)
  )

  def loss(row):
    """Of the discriminator, another pixel under the mask being black."""
    image = batch.image.copy()
    image[:, row, row] = -1.0
    changed = batch._replace(image=image)
    return stage.step(stage.init(KEY), changed, KEY, index=0)[1][
      "discriminator"
    ]

  np.testing.assert_array_equal(loss(9), loss(12))
  assert loss(3) != loss(12)


def test_lpips_is_asked_of_the_network_that_has_it():
  with pytest.raises(ValueError, match="leave vgg19 empty"):
    stage_lib.Inpainting(
      stage_lib.Config(weights=stage_lib.Weights(lpips=1.0)),
      SPACE,
      vgg.Vgg19(num_layers=1, rngs=nnx.Rngs(0)),
      pretrained(),
      num_steps=1,
      resolution=SIDE,
      mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    )


def test_a_step_in_parts_at_half_precision_keeps_the_state_as_it_is():
  economy = dict(accumulate=2, dtype="bfloat16", remat="all")
  stage = make_stage(joint=True, economy=tuple(economy.items()))
  state = jax.eval_shape(stage.init_state, KEY)
  stepped, reported = stage.compiled[0].lower(state, make_batch(), KEY).out_info
  chex.assert_trees_all_equal_shapes_and_dtypes(state, stepped)
  assert reported["loss"].dtype == jnp.float32
