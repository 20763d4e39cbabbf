"""Crops for the perceptual terms lie where they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.stages import conditioning
from pir_jax.types import FaceBatch

SIDE, SIZE = 64, 24
PLACES = np.float32(np.mgrid[:SIDE, :SIDE]).transpose(1, 2, 0)


def _crops(mouth, at_mouth, seed=0):
  """Returns the first row and column of each crop."""
  batch = jnp.tile(PLACES, (len(mouth), 1, 1, 1))
  batch = jnp.concatenate([batch, batch[..., :1]], axis=-1)
  key = jax.random.key(seed)
  crop, again = conditioning.crops((batch, batch), SIZE, key, mouth, at_mouth)
  np.testing.assert_array_equal(crop, again)
  assert crop.shape == (len(mouth), SIZE, SIZE, 3)
  return np.asarray(crop[:, 0, 0, :2])


def _mouth(num, row, column):
  mouth = np.zeros((num, SIDE, SIDE, 1), np.float32)
  mouth[:, row - 3 : row + 4, column - 5 : column + 6] = 1
  return jnp.asarray(mouth)


@pytest.mark.parametrize(("row", "column"), [(40, 30), (60, 6), (4, 58)])
def test_a_crop_at_the_mouth_holds_its_middle(row, column):
  corners = _crops(_mouth(200, row, column), 1.0)
  assert (corners >= 0).all() and (corners <= SIDE - SIZE).all()
  assert (corners <= [row, column]).all()
  assert (corners + SIZE > [row, column]).all()


def test_crops_lie_about_all_parts_as_often_as_they_are_large():
  mouth, eyes = _mouth(2000, 44, 30), _mouth(2000, 14, 16)
  middles = _crops(jnp.maximum(mouth, eyes), 1.0) + SIZE // 2
  lower = middles[:, 0] > 30
  assert lower.mean() == pytest.approx(0.5, abs=0.04)
  assert (np.abs(middles[lower] - [44, 30]) < [4, 6]).all()
  assert (np.abs(middles[~lower] - [14, 16]) < [4, 6]).all()
  assert len(np.unique(middles, axis=0)) > 100, "not always the same"


def test_the_share_of_crops_at_the_mouth_is_kept():
  mouth = _mouth(2000, 40, 30)

  def near(at_mouth):
    off = np.abs(_crops(mouth, at_mouth) + SIZE // 2 - [40, 30])
    return (off < [4, 6]).all(1).mean()

  assert near(1.0) == 1
  assert near(0.5) == pytest.approx(0.5 + 0.5 * near(0.0), abs=0.04)


def test_eyes_count_where_they_are_inpainted():
  one = jnp.ones((1, 4, 4, 1))
  mask = one.at[:, :2].set(0)
  batch = FaceBatch(one, mask, one, 0 * one, one, None, one, one, one)
  np.testing.assert_array_equal(conditioning.detail(batch), mask)


@pytest.mark.parametrize("size", [0, SIDE, SIDE + 1])
def test_no_crop_is_the_whole_image(size):
  images = (jnp.ones((1, SIDE, SIDE, 3)),)
  key = jax.random.key(0)
  got = conditioning.crops(images, size, key, _mouth(1, 40, 30), 1.0)
  assert got is images
