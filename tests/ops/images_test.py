"""Moving, cutting and shrinking images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import images

IMAGE = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def test_shrinking_keeps_the_mean():
  small = images.shrink(IMAGE, 2)
  assert small.shape == (2, 2, 2, 3)
  np.testing.assert_allclose(small.mean((1, 2)), IMAGE.mean((1, 2)), atol=1e-6)


def test_shrinking_to_a_size_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match="size=3 must divide"):
    images.shrink(IMAGE, 3)


def test_each_example_is_cut_at_its_own_corner():
  corner = jnp.array([[0, 1], [4, 2]])
  cut = images.crop(IMAGE, corner, 4)
  np.testing.assert_array_equal(cut[0], IMAGE[0, 0:4, 1:5])
  np.testing.assert_array_equal(cut[1], IMAGE[1, 4:8, 2:6])


def test_a_shift_by_whole_pixels_moves_the_picture():
  matrix = jnp.tile(jnp.array([[1.0, 0, 2], [0, 1.0, -1]]), (2, 1, 1))
  moved = images.warp(IMAGE, matrix)
  # Sampled 2 to the right and 1 above: the picture moves left and down.
  np.testing.assert_allclose(moved[:, 1:, :-2], IMAGE[:, :-1, 2:], atol=1e-5)


def test_a_quarter_turn_is_about_the_centre():
  matrix = jnp.tile(jnp.array([[0.0, -1, 0], [1.0, 0, 0]]), (2, 1, 1))
  turned = images.warp(IMAGE, matrix)
  expected = jnp.rot90(IMAGE, -1, axes=(1, 2))
  opposite = jnp.rot90(IMAGE, 1, axes=(1, 2))
  error = min(
    float(jnp.abs(turned - expected).max()),
    float(jnp.abs(turned - opposite).max()),
  )
  assert error < 1e-5


def test_warping_has_finite_gradients_far_outside():
  def total(shift):
    matrix = jnp.array([[[1.0, 0, 0], [0, 1.0, 0]]] * 2)
    return images.warp(IMAGE, matrix.at[:, :, 2].add(shift)).sum()

  assert np.isfinite(jax.grad(total)(1e4))


def test_grid_is_rows_of_examples():
  grid = images.grid([IMAGE, -IMAGE])
  assert grid.shape == (16, 16, 3)
  np.testing.assert_array_equal(grid[8:, 8:], -IMAGE[1])
