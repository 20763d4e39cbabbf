"""Flicker is what changes beyond what moves."""

import numpy as np
import pytest
from scipy import ndimage

from pir_jax.metrics import flicker

SIDE = 96


def _texture(seed=0):
  noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
  smooth = ndimage.gaussian_filter(noise, 3)
  return 120 + 60 * smooth / np.abs(smooth).max()


def _picture(luma):
  return np.repeat(np.uint8(np.clip(luma, 0, 255))[..., None], 3, -1)


MASK = np.zeros((SIDE, SIDE), bool)
MASK[24:72, 24:72] = True


def _shifted(luma, back):
  return ndimage.affine_transform(
    luma, back[:, :2], back[:, 2], order=3, mode="nearest"
  )


def test_a_motion_is_found():
  back = np.array([[1.0, 0.02, -4.25], [-0.02, 1.0, 1.5]])
  texture = _texture()
  found = flicker.flow(texture, _shifted(texture, back))
  places = np.indices((SIDE, SIDE), float)
  wanted = np.tensordot(back[:, :2], places, 1) + back[:, 2, None, None]
  off = np.linalg.norm(found + places - wanted, axis=0)[MASK]
  assert np.median(off) < 0.1
  assert off.max() < 0.5


def test_what_moves_does_not_flicker():
  texture = _texture()
  still = _picture(texture)
  # Not as a whole: the face's halves part.
  bent = np.indices((SIDE, SIDE), float)
  bent[0] += 3 * np.tanh((bent[0] - SIDE / 2) / 12)
  moved = _picture(ndimage.map_coordinates(texture, bent, mode="nearest"))
  assert flicker.change(still, moved, MASK) < 1
  unmoved = np.abs(moved.astype(float) - still)[MASK].mean()
  assert unmoved > 4


def test_noise_that_is_new_in_every_frame_flickers():
  texture = _texture()
  random = np.random.default_rng(2)

  def noisy(level):
    frames = [
      _picture(texture + random.normal(0, level, texture.shape))
      for _ in range(5)
    ]
    pairs = zip(frames, frames[1:], strict=False)
    return [flicker.change(*pair, MASK) for pair in pairs]

  calm, busy = np.array(noisy(2.0)), np.array(noisy(6.0))
  assert flicker.ratio(busy, calm) == pytest.approx(3, rel=0.1)
  assert flicker.ratio(calm, calm) == 1.0


def test_only_the_region_counts_and_an_empty_one_is_unknown():
  before = _picture(_texture())
  after = before.copy()
  beyond = np.zeros_like(MASK)
  beyond[:, -4:] = True
  after[beyond] = 255 - after[beyond]
  assert flicker.change(before, after, MASK) < 0.5
  assert flicker.change(before, after, beyond) > 10
  nothing = np.zeros_like(MASK)
  assert np.isnan(flicker.change(before, after, nothing))


def test_frames_without_a_value_are_left_out():
  a, b = np.array([np.nan, 2.0, 4.0]), np.array([5.0, 1.0, np.nan])
  assert flicker.ratio(a, b) == 2.0
  assert np.isnan(flicker.ratio(np.array([np.nan]), np.array([1.0])))
