"""Flicker is what changes beyond the head's motion."""

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


def _points(num=20):
  return np.random.default_rng(1).uniform(10, SIDE - 10, (num, 2))


MASK = np.zeros((SIDE, SIDE), bool)
MASK[24:72, 24:72] = True


def test_a_motion_is_found():
  turn = np.array([[0.99, 0.05, 3.0], [-0.05, 0.99, -2.0]])
  after = _points()
  before = after @ turn[:, :2].T + turn[:, 2]
  np.testing.assert_allclose(flicker.motion(before, after), turn, atol=1e-9)


def test_what_moves_with_the_head_does_not_flicker():
  texture = _texture()
  back = np.array([[1.0, 0.02, 1.5], [-0.02, 1.0, -4.25]])
  moved = ndimage.affine_transform(
    texture, back[::-1, 1::-1], back[::-1, 2], order=3, mode="nearest"
  )
  before, after = _picture(texture), _picture(moved)
  assert flicker.change(before, after, back, MASK) < 1.5
  still = np.eye(2, 3)
  assert flicker.change(before, after, still, MASK) > 5


def test_noise_that_is_new_in_every_frame_flickers():
  texture, still = _texture(), np.eye(2, 3)
  random = np.random.default_rng(2)

  def noisy(level):
    frames = [
      _picture(texture + random.normal(0, level, texture.shape))
      for _ in range(5)
    ]
    pairs = zip(frames, frames[1:], strict=False)
    return [flicker.change(*pair, still, MASK) for pair in pairs]

  calm, busy = np.array(noisy(2.0)), np.array(noisy(6.0))
  assert flicker.ratio(busy, calm) == pytest.approx(3, rel=0.1)
  assert flicker.ratio(calm, calm) == 1.0


def test_only_the_region_counts_and_an_empty_one_is_unknown():
  before = _picture(_texture())
  after = before.copy()
  after[~MASK] = 255
  still = np.eye(2, 3)
  assert flicker.change(before, after, still, MASK) == 0
  nothing = np.zeros_like(MASK)
  assert np.isnan(flicker.change(before, after, still, nothing))


def test_frames_without_a_value_are_left_out():
  a, b = np.array([np.nan, 2.0, 4.0]), np.array([5.0, 1.0, np.nan])
  assert flicker.ratio(a, b) == 2.0
  assert np.isnan(flicker.ratio(np.array([np.nan]), np.array([1.0])))
