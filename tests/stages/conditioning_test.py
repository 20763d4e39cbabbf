"""Crops for the perceptual terms lie where they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.stages import conditioning

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


def test_the_share_of_crops_at_the_mouth_is_kept():
  mouth = _mouth(2000, 40, 30)
  near = np.abs(_crops(mouth, 1.0) + SIZE / 2 - [40, 30]).max(1)
  assert len(np.unique(near)) > 5, "not always the same"
  assert near.max() <= SIZE / 4 + 1
  some = np.abs(_crops(mouth, 0.5) + SIZE / 2 - [40, 30]).max(1)
  anywhere = np.abs(_crops(mouth, 0.0) + SIZE / 2 - [40, 30]).max(1)
  share = (anywhere <= SIZE / 4 + 1).mean()
  assert (some <= SIZE / 4 + 1).mean() == pytest.approx(
    0.5 + 0.5 * share, abs=0.04
  )


@pytest.mark.parametrize("size", [0, SIDE, SIDE + 1])
def test_no_crop_is_the_whole_image(size):
  images = (jnp.ones((1, SIDE, SIDE, 3)),)
  key = jax.random.key(0)
  got = conditioning.crops(images, size, key, _mouth(1, 40, 30), 1.0)
  assert got is images
