"""Large kernels on images: the plain convolution, otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import cells, convolution


def _given(num_in=3, num_out=8, size=5, height=12, width=16):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, height, width, num_in)).astype(np.float32)
  kernel = rng.normal(size=(size, size, num_in, num_out)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(kernel)


def _plain(x, kernel, padding="VALID"):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.mark.parametrize("size", [5, 7])
def test_it_is_the_plain_convolution(size):
  x, kernel = _given(size=size)
  want = _plain(x, kernel)
  got = cells.conv(x, kernel)
  # Float32, summed in another order.
  np.testing.assert_allclose(got, want, atol=1e-5 * float(want.std()))


def test_gradients_are_those_of_the_plain_convolution():
  x, kernel = _given(height=8, width=8)
  target = jnp.asarray(
    np.random.default_rng(1).normal(size=(2, 8, 8, 8)), jnp.float32
  )

  def ours(x, kernel):
    return jnp.sum(target * convolution.conv2d(x, kernel))

  def plain(x, kernel):
    return jnp.sum(target * _plain(x, kernel, "SAME"))

  found = jax.grad(ours, (0, 1))(x, kernel)
  wanted = jax.grad(plain, (0, 1))(x, kernel)
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(b.std()))


@pytest.mark.parametrize(
  "change,fits",
  [
    ({}, True),
    ({"num_in": 8}, False),
    ({"num_out": 64}, False),
    ({"size": 3}, False),
    ({"size": 6}, False),
    ({"height": 11}, False),
  ],
)
def test_used_for_large_odd_kernels_on_images_only(change, fits):
  x, kernel = _given(**change)
  assert cells.fits(x.shape, kernel.shape, x.dtype) is fits
