"""One law for all stages: how many devices there are changes nothing.

b batch.
"""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import (
  dual_discriminator,
  faceformer,
  inpainting,
  patch_discriminator,
  renderer,
  triplane_generator,
  vgg,
  whisper,
)
from pir_jax.runtime import optim, sharding
from pir_jax.stages import expression, gan, triplane
from pir_jax.stages import inpainting as inpainting_stage
from pir_jax.types import (
  Cameras,
  ExpressionStats,
  FaceBatch,
  FaceSpace,
  SpeechBatch,
)

BATCH, SIDE, FRAMES = 8, 16, 6
SPACE = FaceSpace(
  2, ("jaw", "lips"), np.float32([0.3, -0.2]), np.float32([0.5, 2.0])
)
RENDERED = triplane_generator.Config(
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
# Of so small networks even these arrays count as large.
RULES = dict(min_size=32)


def speech(mesh):
  config = expression.Config(
    model=faceformer.Config(
      width=8, ffn=8, num_heads=2, dropout=0.1, context=4
    ),
    encoder="whisper",
    mode="teacher_forced",
    window=6,
    ema_decay=0.5,
    margin=1,
  )
  encoder = whisper.WhisperEncoder(
    whisper.Config(width=8, num_heads=2, num_layers=1, ffn=8),
    rngs=nnx.Rngs(0),
  )
  return expression.Expression(config, SPACE, encoder, num_steps=9, mesh=mesh)


def faces(mesh):
  config = triplane.Config(
    model=RENDERED,
    optim=optim.Config(learning_rate=1e-3),
    perceptual_layers=1,
    weights=triplane.Weights(adversarial=0.1, variation=0.0),
    gan=gan.Config(
      model=dual_discriminator.Config(
        channel_base=32, channel_max=4, map_depth=1
      ),
      blur=1.0,
      r1_every=4,
    ),
  )
  return triplane.TriPlane(config, SPACE, features(), num_steps=9, mesh=mesh)


def frames(mesh):
  config = inpainting_stage.Config(
    model=inpainting.Config(
      channels=4, num_downsamples=1, num_global_blocks=1, num_local_blocks=1
    ),
    discriminator=patch_discriminator.Config(
      channels=4, num_layers=1, num_scales=2
    ),
    perceptual_layers=1,
  )
  return inpainting_stage.Inpainting(
    config,
    SPACE,
    features(),
    filled(
      lambda: triplane_generator.TriPlaneGenerator(RENDERED, rngs=nnx.Rngs(0))
    ),
    num_steps=9,
    mesh=mesh,
    resolution=RENDERED.resolution,
    predicted_expression=np.zeros((BATCH, 2), np.float32),
  )


@functools.cache
def features():
  return filled(lambda: vgg.Lpips("vgg", num_layers=1, rngs=nnx.Rngs(0)))


def filled(make):
  """From numpy: drawing in JAX compiles once a shape."""
  graph, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(1)
  return nnx.merge(
    graph,
    jax.tree.map(
      lambda x: jax.numpy.asarray(rng.normal(0, 0.3, x.shape), x.dtype), state
    ),
  )


def make_batch(make):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return rng.normal(0, 0.3, (BATCH, *shape)).astype(np.float32)

  if make is speech:
    return SpeechBatch(
      normal(640 * FRAMES),
      np.zeros(BATCH, np.int32),
      np.full(BATCH, 640 * FRAMES, np.int32),
      normal(FRAMES, 2),
      np.ones((BATCH, FRAMES), np.float32),
      normal(2),
      ExpressionStats(normal(2), np.ones((BATCH, 2), np.float32)),
    )
  pose = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  pose[2, 3] = 2.7
  intrinsics = np.float32([[3, 0, 0.5], [0, 3, 0.5], [0, 0, 1]])
  mask = np.zeros((BATCH, SIDE, SIDE, 1), np.float32)
  mask[:, 4:12, 4:12] = 1
  return FaceBatch(
    image=np.clip(normal(SIDE, SIDE, 3), -1, 1),
    mask=mask,
    head=mask,
    mouth=mask,
    eyes=mask,
    cameras=Cameras(np.stack([pose] * BATCH), np.stack([intrinsics] * BATCH)),
    identity=normal(2),
    expression=normal(2),
    index=np.arange(BATCH, dtype=np.int32),
  )


def first_losses(make, num_devices, fsdp):
  """Terms of five steps, and (bytes on one device, of all of the state)."""
  config = sharding.Config(fsdp=fsdp, **RULES)
  mesh = sharding.make_mesh(config, jax.devices()[:num_devices])
  stage = make(mesh)
  stage.split_by(config)
  state = stage.init(jax.random.key(0))
  batch = sharding.shard_batch(mesh, make_batch(make))
  terms = []
  for index in range(5):
    state, found = stage.step(state, batch, jax.random.key(1), index=index)
    terms.append({name: float(value) for name, value in found.items()})
  return terms, sharding.device_bytes(state), state


@pytest.mark.slow  # Each compiles its steps for three meshes.
@pytest.mark.parametrize("make", [speech, faces, frames])
def test_meshes_give_the_same_losses_and_fsdp_splits_the_state(make):
  want, (held, whole), _ = first_losses(make, 1, 1)
  assert held == whole
  assert len({step["loss"] for step in want}) == 5
  for fsdp in (1, 2):
    got, (held, all_of_it), state = first_losses(make, 8, fsdp)
    assert all_of_it == whole
    # Nothing is split where nobody shares; two share all but small arrays.
    low, high = (1.0, 1.0) if fsdp == 1 else (0.5, 0.75)
    assert low <= held / whole <= high
    # What is counted is what there is.
    first = jax.devices()[0]
    there = sum(
      shard.data.nbytes
      for leaf in jax.tree.leaves(state)
      for shard in leaf.addressable_shards
      if shard.device == first
    )
    assert there == held
    if fsdp == 2:
      # All three copies of a network: parameters, moments, averages.
      name = next(iter(state.ema))
      net = state.nets[name]
      for tree in (net.params, net.opt_state, state.ema[name]):
        assert any(
          "fsdp" in leaf.sharding.spec for leaf in jax.tree.leaves(tree)
        )
    for one, other in zip(want, got, strict=True):
      assert one.keys() == other.keys()
      for name, value in one.items():
        # Sums in another order, and Adam makes the most of what rounding leaves
        # of a gradient of zero.
        assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
