"""Pooling and instance normalisation against float64 loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import pooling

# float32 rounding of sums of at most some hundred values near 1.
_ATOL = 1e-5


def _image(*shape):
  return np.random.default_rng(0).normal(size=shape)


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters((8, 6), (7, 9), (1, 2))
  def test_halve_averages_only_the_neighbours_inside(self, height, width):
    image = _image(2, height, width, 3)
    rows, columns = -(-height // 2), -(-width // 2)
    expected = np.zeros((2, rows, columns, 3))
    for i in range(rows):
      for j in range(columns):
        top, left = max(2 * i - 1, 0), max(2 * j - 1, 0)
        window = image[:, top : 2 * i + 2, left : 2 * j + 2]
        expected[:, i, j] = window.mean((1, 2))
    result = self.variant(pooling.halve)(jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(result, expected, atol=_ATOL)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters((2, 2), (3, 2), (3, 1))
  def test_max_pool_takes_the_largest_of_each_window(self, size, stride):
    image = _image(2, 9, 8, 3).astype(np.float32)
    rows, columns = (9 - size) // stride + 1, (8 - size) // stride + 1
    expected = np.zeros((2, rows, columns, 3))
    for i in range(rows):
      for j in range(columns):
        top, left = i * stride, j * stride
        window = image[:, top : top + size, left : left + size]
        expected[:, i, j] = window.max((1, 2))
    pool = self.variant(lambda x: pooling.max_pool(x, size, stride))
    np.testing.assert_array_equal(pool(jnp.asarray(image)), expected)

  @chex.variants(with_jit=True, without_jit=True)
  def test_instance_norm_agrees_with_float64_far_from_zero(self):
    image = 3 * _image(2, 6, 5, 4) + 100
    mean = image.mean((1, 2), keepdims=True)
    variance = image.var((1, 2), keepdims=True)
    # The offset of 100 costs two of float32's seven digits.
    np.testing.assert_allclose(
      self.variant(pooling.instance_norm)(jnp.asarray(image, jnp.float32)),
      (image - mean) / np.sqrt(variance + 1e-5),
      atol=1e-4,
    )


def test_values_and_gradients_are_finite_at_extremes(extreme):
  for function in (
    pooling.halve,
    pooling.instance_norm,
    lambda x: pooling.max_pool(x, 3, 2),
  ):
    chex.assert_tree_all_finite(
      jax.value_and_grad(lambda x, f=function: f(x)[0, 0, 0, 0])(
        jnp.full((1, 4, 4, 2), extreme)
      )
    )


def test_max_pool_refuses_an_image_smaller_than_its_window():
  with pytest.raises(ValueError, match="larger image"):
    pooling.max_pool(jnp.zeros((1, 2, 5, 1)), 3, 2)


def test_instance_norm_of_a_constant_is_zero():
  image = jnp.full((1, 4, 4, 2), 7.0)
  np.testing.assert_array_equal(pooling.instance_norm(image), 0 * image)
