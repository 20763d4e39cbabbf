"""Convolutions by rows and by tiles: the direct sum, computed otherwise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import convolution, cpu_convolution


def _sample(shape, kernel_shape):
  rng = np.random.default_rng(0)
  return rng.normal(size=shape), rng.normal(size=kernel_shape)


def _float32(*arrays):
  return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def _direct(x, kernel):
  """Correlates without padding; float64 and slow."""
  sizes = zip(x.shape[1:3], kernel.shape[:2], strict=True)
  height, width = (n - size + 1 for n, size in sizes)
  return sum(
    x[:, r : r + height, c : c + width] @ kernel[r, c]
    for r, c in np.ndindex(kernel.shape[:2])
  )


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(("square", (5, 5)), ("wide", (3, 7)))
  def test_rows_give_the_direct_sum(self, size):
    x, kernel = _sample((2, 12, 16, 8), (*size, 8, 3))
    got = self.variant(cpu_convolution.conv_by_rows)(*_float32(x, kernel))
    want = _direct(x, kernel)
    # Float32, summed in another order.
    np.testing.assert_allclose(got, want, atol=1e-5 * want.std())

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(("one", 1), ("three", 3))
  def test_tiles_give_the_direct_sum(self, num_batch):
    x, kernel = _sample((num_batch, 10, 14, 5), (3, 3, 5, 4))
    got = self.variant(cpu_convolution.conv3x3)(*_float32(x, kernel))
    want = _direct(x, kernel)
    # Coefficients grow to 27/8 and cancel: a digit of float32's seven and a
    # half.
    np.testing.assert_allclose(got, want, atol=1e-5 * want.std())


@pytest.mark.parametrize("num_batch", [1, 3])
def test_strips_change_nothing(num_batch, monkeypatch):
  x, kernel = _float32(*_sample((num_batch, 10, 14, 5), (3, 3, 5, 4)))
  whole = cpu_convolution.conv_by_tiles(x, kernel)
  # Room for less than a row of tiles: a strip holds one at least.
  monkeypatch.setattr(cpu_convolution, "_STRIP", 2000)
  # The same products in matrices of other sizes.
  np.testing.assert_allclose(
    cpu_convolution.conv_by_tiles(x, kernel), whole, atol=1e-5 * whole.std()
  )


@pytest.mark.parametrize("channels", [(3, 8), (8, 3)])
def test_gradients_by_rows_are_those_that_jax_derives(channels):
  x, kernel = _float32(*_sample((2, 8, 8, channels[0]), (5, 5, *channels)))
  cotangent = jax.random.normal(jax.random.key(1), (2, 8, 8, channels[1]))

  def derived(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  got, want = (
    jax.vjp(f, x, kernel)[1](cotangent) for f in (convolution.conv2d, derived)
  )
  # Float32 sums of up to 200 products in another order; gradients near 10.
  chex.assert_trees_all_close(got, want, atol=1e-4)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(x, kernel, convolve):
    return jnp.sum(convolve(x, kernel))

  for convolve, size in (
    (cpu_convolution.conv_by_rows, 5),
    (cpu_convolution.conv3x3, 3),
  ):
    x, kernel = jnp.full((1, 10, 10, 2), extreme), jnp.ones((size, size, 2, 2))
    chex.assert_tree_all_finite(
      jax.value_and_grad(total, (0, 1))(x, kernel, convolve)
    )


@pytest.mark.parametrize(
  "kernel, dtype, fits",
  [
    ((7, 7, 32, 3), "float32", True),
    ((7, 7, 32, 8), "float32", False),
    ((3, 3, 32, 3), "float32", False),
    ((7, 7, 32, 3), "bfloat16", False),
  ],
)
def test_rows_are_for_large_kernels_with_few_outputs(kernel, dtype, fits):
  assert cpu_convolution.rows_fit(kernel, jnp.dtype(dtype)) is fits


@pytest.mark.parametrize(
  "shape, size, dtype, fits",
  [
    ((2, 258, 258, 64), 3, "float32", True),
    ((2, 256, 258, 64), 3, "float32", False),
    ((2, 258, 258, 32), 3, "float32", False),
    ((2, 258, 258, 64), 1, "float32", False),
    ((2, 258, 258, 64), 3, "bfloat16", False),
    ((2, 34, 34, 64), 3, "float32", False),
  ],
)
def test_tiles_are_for_large_images_of_whole_tiles_and_many_channels(
  shape, size, dtype, fits
):
  kernel = (size, size, shape[-1], 64)
  assert cpu_convolution.tiles_fit(shape, kernel, jnp.dtype(dtype)) is fits
