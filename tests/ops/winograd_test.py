"""A 3x3 convolution by tiles: what it equals, and where it is used."""

import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import winograd


def _direct(x, kernel):
  """Correlated without padding; float64 and slow."""
  height, width = x.shape[1] - 2, x.shape[2] - 2
  return sum(
    x[:, r : r + height, c : c + width] @ kernel[r, c]
    for r in range(3)
    for c in range(3)
  )


@pytest.mark.parametrize("num_batch", [1, 3])
@pytest.mark.parametrize("strip", [2**21, 2000])
def test_tiles_give_the_convolution(num_batch, strip, monkeypatch):
  # The second strip holds one row of tiles, or none: one is the least.
  monkeypatch.setattr(winograd, "_STRIP", strip)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(num_batch, 10, 14, 5))
  kernel = rng.normal(size=(3, 3, 5, 4))
  got = winograd.transformed(
    jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
  )
  want = _direct(x, kernel)
  # Coefficients reach 27/8 and cancel: a digit of float32's seven and a half.
  np.testing.assert_allclose(got, want, atol=1e-5 * want.std())


@pytest.mark.parametrize(
  "shape,size,dtype,fits",
  [
    ((1, 10, 10, 64), 3, "float32", True),
    ((1, 8, 10, 64), 3, "float32", False),
    ((1, 10, 10, 32), 3, "float32", False),
    ((1, 10, 10, 64), 1, "float32", False),
    ((1, 10, 10, 64), 3, "bfloat16", False),
  ],
)
def test_used_where_tiles_fit_and_pay(shape, size, dtype, fits):
  kernel = (size, size, shape[-1], 64)
  assert winograd.fits(shape, kernel, jnp.dtype(dtype)) is fits
