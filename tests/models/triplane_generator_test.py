"""The generator: shapes, independence of a batch's examples, keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.geometry import cameras
from pir_jax.models import renderer, triplane_generator
from pir_jax.types import Cameras


def _config(**options):
  return triplane_generator.Config(
    **{
      "identity_size": 5,
      "expression_size": 4,
      "w_size": 16,
      "channel_base": 64,
      "channel_max": 8,
      "plane_resolution": 16,
      "plane_channels": 4,
      "feature_resolution": 8,
      "resolution": 32,
      "sr_channels": (8, 8),
      "renderer": renderer.Config(num_coarse=6, num_fine=6),
    }
    | options
  )


@pytest.fixture(scope="module")
def network():
  module = triplane_generator.TriPlaneGenerator(_config(), rngs=nnx.Rngs(0))
  module.backbone.conv.noise_strength[...] = jnp.array(0.5)
  return module


@pytest.fixture(scope="module")
def render(network):
  return jax.jit(lambda *x, key=None: network(*x, key=key))


@pytest.fixture(scope="module")
def inputs():
  eyes = 2.7 * jnp.array([[0.0, 0.0, 1.0], [0.3, 0.1, 0.95]])
  up = jnp.array([[0.0, 1.0, 0.0]] * 2)
  pose = cameras.look_at(eyes, jnp.zeros((2, 3)), up)
  k = jnp.array([[4.26, 0.0, 0.5], [0.0, 4.26, 0.5], [0.0, 0.0, 1.0]])
  keys = jax.random.split(jax.random.key(0))
  return (
    jax.random.normal(keys[0], (2, 5)),
    jax.random.normal(keys[1], (2, 4)),
    cameras.to_vector(Cameras(pose, jnp.stack([k, k]))),
  )


def test_shapes_and_ranges(render, inputs):
  got = render(*inputs)
  assert got.planes.shape == (2, 3, 16, 16, 4)
  assert got.feature_image.shape == (2, 8, 8, 4)
  assert got.depth.shape == got.weight_sum.shape == (2, 8, 8)
  assert got.image.shape == (2, 32, 32, 3)
  np.testing.assert_array_equal(got.raw_image, got.feature_image[..., :3])
  # Colours reach 0.001 past [0, 1], so features 0.002 past [-1, 1].
  assert np.all(np.abs(got.feature_image) <= 1.002 + 1e-5)
  assert np.all((got.depth > 2.25) & (got.depth < 3.3 + 0.21))


def test_a_batch_of_two_is_two_batches_of_one(render, inputs):
  both = render(*inputs)
  for i in range(2):
    alone = render(*(x[i : i + 1] for x in inputs))
    for a, b in zip(both, alone, strict=True):
      # Another order of float32 sums, through a dozen layers.
      np.testing.assert_allclose(a[i : i + 1], b, atol=2e-4)


def test_same_key_same_picture(render, inputs):
  one, again, other = (
    render(*inputs, key=jax.random.key(i)).image for i in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, again)
  assert np.abs(np.asarray(one - other)).max() > 1e-3


def test_every_parameter_is_trained_by_the_image(network, inputs):
  graphdef, params, rest = nnx.split(network, nnx.Param, ...)

  @jax.jit
  def gradient(params):
    def loss(params):
      module = nnx.merge(graphdef, params, rest)
      return jnp.sum(jnp.square(module(*inputs).image))

    return jax.grad(loss)(params)

  gradients = gradient(params)
  chex.assert_tree_all_finite(gradients)
  for path, leaf in nnx.to_flat_state(gradients):
    assert np.any(leaf[...] != 0), path


def test_outside_the_planes_is_the_density_of_nothing(network):
  density = jax.jit(network.density)
  planes = jax.random.normal(jax.random.key(0), (2, 3, 16, 16, 4))
  outside = density(planes, jnp.full((2, 3, 3), 0.9))
  nothing = density(jnp.zeros_like(planes), jnp.zeros((2, 3, 3)))
  inside = density(planes, jnp.zeros((2, 3, 3)))
  np.testing.assert_allclose(outside, nothing, atol=1e-6)
  assert np.abs(np.asarray(inside - nothing)).max() > 1e-2


def test_the_image_can_be_left_out(network, inputs):
  got = jax.eval_shape(lambda *x: network(*x, upsample=False), *inputs)
  assert got.image is None


def test_raw_images_need_three_channels():
  with pytest.raises(ValueError, match="plane_channels=2"):
    triplane_generator.TriPlaneGenerator(
      _config(plane_channels=2), rngs=nnx.Rngs(0)
    )


def test_full_size_decoder_and_upsampler_have_the_papers_numbers():
  abstract = nnx.eval_shape(
    lambda: triplane_generator.TriPlaneGenerator(
      triplane_generator.Config(), rngs=nnx.Rngs(0)
    )
  )

  def count(module):
    return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))

  # EG3D's decoder, and its 8XDC upsampler in millions.
  assert count(abstract.renderer.decoder) == 4257
  assert round(count(abstract.upsampler) / 1e6, 2) == 1.65
