"""A 3x3 convolution by tiles: what it equals, and where it is used."""

import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import winograd


def _direct(x, kernel):
  """Zeros around x, correlated; float64 and slow."""
  _, height, width, _ = x.shape
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(
    padded[:, r : r + height, c : c + width] @ kernel[r, c]
    for r in range(3)
    for c in range(3)
  )


@pytest.mark.parametrize("num_batch", [1, 3])
def test_tiles_give_the_convolution(num_batch):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(num_batch, 8, 12, 5))
  kernel = rng.normal(size=(3, 3, 5, 4))
  got = winograd.transformed(
    jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
  )
  want = _direct(x, kernel)
  # The transforms' coefficients reach 8 and cancel: two digits of float32.
  np.testing.assert_allclose(got, want, atol=1e-4 * want.std())


@pytest.mark.parametrize(
  "shape,size,dtype,fits",
  [
    ((1, 8, 8, 64), 3, "float32", True),
    ((1, 6, 8, 64), 3, "float32", False),
    ((1, 8, 8, 32), 3, "float32", False),
    ((1, 8, 8, 64), 1, "float32", False),
    ((1, 8, 8, 64), 3, "bfloat16", False),
  ],
)
def test_used_where_tiles_fit_and_pay(shape, size, dtype, fits):
  x = jnp.zeros(shape, dtype)
  assert winograd.fits(x, jnp.zeros((size, size, shape[-1], 64))) is fits
