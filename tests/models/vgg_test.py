"""Laws of the perceptual networks; published numbers: convert/lpips_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import vgg


def _images(size=40):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.uniform(-1, 1, (2, 2, size, size, 3)), jnp.float32)


def _filled(**arguments):
  """Filled from numpy: drawing in JAX compiles once a shape."""
  graph, state = nnx.split(
    nnx.eval_shape(lambda: vgg.Lpips(**arguments, rngs=nnx.Rngs(0)))
  )
  rng = np.random.default_rng(1)

  def draw(x):
    value = rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape)
    return jnp.asarray(np.abs(value) if x.ndim == 1 else value, x.dtype)

  return nnx.merge(graph, jax.tree.map(draw, state))


@pytest.fixture(scope="module")
def alex():
  return _filled(net="alex")


@pytest.fixture(scope="module")
def distance(alex):
  return jax.jit(lambda a, b: alex(a, b))


@pytest.mark.parametrize(
  "net, shapes",
  [
    ("vgg", [(64, 64), (32, 128), (16, 256), (8, 512), (4, 512)]),
    ("alex", [(15, 64), (7, 192), (3, 384), (3, 256), (3, 256)]),
  ],
)
def test_feature_layers_have_the_published_sizes(net, shapes):
  features = jax.eval_shape(
    lambda x: vgg.Lpips(net, rngs=nnx.Rngs(0)).features(x),
    jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
  )
  assert [(f.shape[1], f.shape[-1]) for f in features] == shapes


def test_fewer_layers_are_the_first_of_all(alex):
  image = _images()[0]
  short = _filled(net="alex", num_layers=2)
  assert len(short.layers) == len(short.heads) == 2
  for i in range(2):
    short.layers[i].kernel[...] = alex.layers[i].kernel[...]
    short.layers[i].bias[...] = alex.layers[i].bias[...]
  for a, b in zip(short.features(image), alex.features(image), strict=False):
    np.testing.assert_array_equal(a, b)


def test_distance_is_zero_for_equals_positive_and_symmetric(distance):
  a, b = _images()
  # A compiler may fuse the two sides differently: the square of rounding.
  np.testing.assert_allclose(distance(a, a), [0, 0], atol=1e-12)
  assert (distance(a, b) > 0).all()
  # Subtraction is exact under exchange; only fused sums may differ.
  np.testing.assert_allclose(distance(a, b), distance(b, a), rtol=1e-6)


def test_distance_of_each_example_is_its_own(distance):
  a, b = _images()
  both = distance(a, b)
  # Only the order of float32 sums differs.
  np.testing.assert_allclose(both[:1], distance(a[:1], b[:1]), rtol=1e-5)


def test_gradient_is_finite_at_equal_images_and_at_dead_features(distance):
  a, b = _images()
  gradient = jax.jit(jax.grad(lambda x, y: distance(x, y).sum()))
  for y in (a, b):
    assert np.isfinite(gradient(a, y)).all()
  gradient = jax.grad(lambda x: vgg.unit(x).sum())(jnp.zeros((2, 3)))
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(vgg.unit(jnp.zeros((2, 3))), 0)


def test_unit_scales_to_length_one():
  x = jnp.array([[3.0, 4.0], [3e-6, 4e-6], [3e6, 4e6]])
  # 1e-10 beside 5e-6 is 2e-5 of it: the published constant, not rounding.
  np.testing.assert_allclose(vgg.unit(x), [[0.6, 0.8]] * 3, rtol=1e-4)


@pytest.mark.parametrize("arguments", [dict(net="squeeze"), dict(num_layers=0)])
def test_unknown_networks_are_refused(arguments):
  with pytest.raises(ValueError, match="must be"):
    vgg.Lpips(**(dict(net="vgg") | arguments), rngs=nnx.Rngs(0))
