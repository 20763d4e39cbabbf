"""Moving, cutting and shrinking images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import images

IMAGE = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_shrinking_keeps_the_mean_of_every_block(self):
    small = self.variant(lambda x: images.shrink(x, 2))(IMAGE)
    assert small.shape == (2, 2, 2, 3)
    want = IMAGE[:, 4:, :4].mean((1, 2))
    np.testing.assert_allclose(small[:, 1, 0], want, atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_each_example_is_cut_at_its_own_corner(self):
    corner = jnp.array([[0, 1], [4, 2]])
    crop = self.variant(lambda x, corner: images.crop(x, corner, 4))
    want = jnp.stack([IMAGE[0, 0:4, 1:5], IMAGE[1, 4:8, 2:6]])
    np.testing.assert_array_equal(crop(IMAGE, corner), want)

  @chex.variants(with_jit=True, without_jit=True)
  def test_a_shift_by_whole_pixels_moves_the_picture(self):
    matrix = jnp.tile(jnp.array([[1.0, 0, 2], [0, 1.0, -1]]), (2, 1, 1))
    moved = self.variant(images.warp)(IMAGE, matrix)
    # Sampled 2 to the right and 1 above: the picture moves left and down.
    np.testing.assert_allclose(moved[:, 1:, :-2], IMAGE[:, :-1, 2:], atol=1e-5)


def test_shrinking_to_a_size_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match="size=3 must divide"):
    images.shrink(IMAGE, 3)


def test_a_quarter_turn_is_about_the_centre():
  matrix = jnp.tile(jnp.array([[0.0, -1, 0], [1.0, 0, 0]]), (2, 1, 1))
  turned = images.warp(IMAGE, matrix)
  # (x, y) is read at (-y, x): row r from the column r-th from the right.
  want = jnp.rot90(IMAGE, axes=(1, 2))
  np.testing.assert_allclose(turned, want, atol=1e-5)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(image, matrix):
    return images.warp(image, matrix).sum()

  unit = jnp.array([[[1.0, 0, 0], [0, 1.0, 0]]])
  gradient = jax.jit(jax.value_and_grad(total, (0, 1)))
  image = IMAGE[:1]
  chex.assert_tree_all_finite(
    (
      gradient(image, unit.at[:, :, 2].add(extreme)),
      gradient(image, extreme * unit),
      gradient(jnp.full_like(image, extreme), unit),
    )
  )


def test_grid_is_rows_of_examples():
  grid = images.grid([IMAGE, -IMAGE])
  assert grid.shape == (16, 16, 3)
  np.testing.assert_array_equal(grid[8:, 8:], -IMAGE[1])
