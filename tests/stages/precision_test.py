"""What bfloat16 and recomputation change of every network: nearly nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
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
from pir_jax.stages import base

POSE = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
POSE[2, 3] = 2.7
CAMERA = np.concatenate([POSE.ravel(), [3, 0, 0.5, 0, 3, 0.5, 0, 0, 1]])


def draw(*shape):
  return jax.random.normal(jax.random.key(len(shape)), shape)


class Compared(nnx.Module):
  """LPIPS as a network of two images, with a Config to be changed."""

  @dataclasses.dataclass(kw_only=True)
  class Config:
    dtype: str = "float32"
    remat: bool = False

  def __init__(self, config, *, rngs):
    self.config = config
    made = vgg.Lpips("vgg", num_layers=2, rngs=rngs)
    self.lpips = made.adapted(dtype=config.dtype, remat=config.remat)

  def __call__(self, *images):
    return self.lpips(*images)


NETWORKS = {
  "faceformer": (
    faceformer.ExpressionDecoder,
    faceformer.Config(
      width=32,
      ffn=32,
      num_heads=2,
      audio_size=6,
      identity_size=3,
      expression_size=4,
      context=4,
    ),
    lambda m: m.generate(draw(2, 6, 6), draw(2, 3)),
  ),
  "generator": (
    triplane_generator.TriPlaneGenerator,
    triplane_generator.Config(
      identity_size=3,
      expression_size=2,
      channel_base=64,
      channel_max=8,
      w_size=8,
      constant_side=8,
      plane_resolution=16,
      plane_channels=4,
      feature_resolution=8,
      resolution=16,
      sr_channels=(8, 8),
      renderer=renderer.Config(num_coarse=4, num_fine=4, hidden_size=8),
    ),
    lambda m: m(draw(2, 3), draw(2, 2), jnp.float32([CAMERA] * 2))[1:],
  ),
  "inpainting": (
    inpainting.InpaintingGenerator,
    inpainting.Config(
      feature_channels=3,
      channels=8,
      num_downsamples=1,
      num_global_blocks=1,
      num_local_blocks=1,
    ),
    lambda m: m(draw(2, 32, 32, 3), draw(2, 8, 8, 3)).image,
  ),
  "patches": (
    patch_discriminator.MultiscaleDiscriminator,
    patch_discriminator.Config(channels=8, num_layers=2),
    lambda m: m(draw(2, 32, 32, 6)).logits,
  ),
  "discriminator": (
    dual_discriminator.DualDiscriminator,
    dual_discriminator.Config(
      resolution=16, channel_base=64, channel_max=8, map_depth=1
    ),
    lambda m: m(draw(2, 16, 16, 3), draw(2, 4, 4, 3), draw(2, 25)),
  ),
  "lpips": (
    Compared,
    Compared.Config(),
    lambda m: m(draw(2, 16, 16, 3), draw(2, 16, 16, 3)[::-1]),
  ),
}


@functools.cache
def start(name):
  """Arrays drawn by numpy: drawing in JAX compiles once a shape."""
  make, config, _ = NETWORKS[name]
  module = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0)))
  rng = np.random.default_rng(0)

  def filled(x):
    fan_in = int(np.prod(x.shape[:-1])) if len(x.shape) > 1 else 4
    # What is stored near unit variance is scaled where it is used.
    equalised = name in ("generator", "discriminator") and len(x.shape) > 1
    std = 1.0 if equalised else fan_in**-0.5
    return jnp.asarray(rng.normal(0, std, x.shape), x.dtype)

  _, params, buffers = nnx.split(module, nnx.Param, ...)
  return tuple(jax.tree.map(filled, tree) for tree in (params, buffers))


@functools.cache
def taken(name, **changes):
  """Outputs as a vector, their gradient as one, and all dtypes that left."""
  make, config, use = NETWORKS[name]
  config = dataclasses.replace(config, **changes)
  network = base.Network(lambda rngs: make(config, rngs=rngs))
  params, buffers = start(name)

  def run(params):
    leaves = jax.tree.leaves(use(network.bind(params, buffers)))
    out = jnp.concatenate([x.ravel() for x in leaves])
    return jnp.mean(jnp.square(out - 1.0)), leaves

  gradient, leaves = jax.jit(jax.grad(run, has_aux=True))(params)
  dtypes = {x.dtype for x in (*leaves, *jax.tree.leaves(gradient))}
  vector = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    for tree in (leaves, gradient)
  ]
  return *vector, dtypes


def cosine(a, b):
  return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


LONG = ("generator", "discriminator", "inpainting")


@pytest.mark.parametrize(
  "name",
  [
    # Half a minute of compiling each.
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
    for name in NETWORKS
  ],
)
def test_bfloat16_gives_nearly_the_same_in_float32(name):
  out, gradient, _ = taken(name)
  other, its_gradient, dtypes = taken(name, dtype="bfloat16", remat=True)
  assert dtypes == {jnp.dtype("float32")}
  # Eight bits of mantissa, a handful of layers.
  assert np.linalg.norm(other - out) < 0.05 * np.linalg.norm(out)
  assert cosine(gradient, its_gradient) > 0.98
  # It was not the same computation.
  assert np.abs(other - out).max() > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_recomputation_changes_nothing_but_rounding(name):
  out, gradient, _ = taken(name)
  other, its_gradient, _ = taken(name, remat=True)
  np.testing.assert_allclose(other, out, rtol=1e-5, atol=1e-6)
  # Sums over many pixels, in another order.
  assert np.abs(its_gradient - gradient).max() < 1e-4 * np.abs(gradient).max()


def test_a_frozen_encoder_gives_the_same_features_in_bfloat16():
  waveform = 0.1 * draw(2, 6400)
  config = whisper.Config(width=24, num_heads=2, num_layers=2, ffn=32)
  features = []
  module = whisper.WhisperEncoder(config, rngs=nnx.Rngs(0))
  for dtype in ("float32", "bfloat16"):
    network, params = base.Network.of(module, dtype=dtype)
    features.append(jax.jit(lambda n, w=network: w.bind(*n)(waveform))(params))
  assert features[1].dtype == jnp.float32
  gap = np.linalg.norm(features[1] - features[0])
  assert 0 < gap < 0.03 * np.linalg.norm(features[0])
