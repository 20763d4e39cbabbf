"""Windows: cutting and placing agree with where things are."""

import numpy as np
import pytest

from pir_jax import types
from pir_jax.media import crops


def _ramp(rows, cols):
  """An image whose value is a linear function of position."""
  y, x = np.mgrid[:rows, :cols] + 0.5
  return np.stack([2 * x, 3 * y, x + y], -1).round().astype(np.uint8)


def test_a_window_on_whole_pixels_is_a_slice():
  image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
  window = np.array([30.0, 20.0, 16.0])
  got = crops.crop_window(image, window, 16)
  np.testing.assert_array_equal(got, image[12:28, 22:38])


def test_a_window_at_fractions_keeps_positions():
  image = _ramp(60, 80)
  window = np.array([40.3, 25.8, 20.5])
  got = crops.crop_window(image, window, 41)
  centres = (np.arange(41) + 0.5) / 41 * 20.5
  want = 2 * (centres + 40.3 - 10.25)
  # One grey level: the ramp itself is rounded, and so is the result.
  assert np.abs(got[20, :, 0] - want).max() <= 1.0


def test_a_window_over_the_edge_repeats_the_edge():
  image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
  got = crops.crop_window(image, np.array([0.0, 0.0, 20.0]), 20)
  np.testing.assert_array_equal(got[:10, :10], image[0, 0])
  np.testing.assert_array_equal(got[10:, 10:], image[:10, :10])


@pytest.mark.parametrize(
  "window", [(30.0, 20.0, 16.0), (31.4, 19.7, 21.3), (3.0, 5.0, 24.0)]
)
@pytest.mark.parametrize("side", [24, 64])
def test_placing_undoes_cutting(window, side):
  image = _ramp(40, 60)
  window = np.array(window)
  patch = crops.crop_window(image, window, side)
  pixels, rows, cols = crops.place_window(patch, window, (60, 40))
  inner = (slice(3, -3),) * 2  # Bicubic taps at the patch's border are cut.
  error = pixels[inner].astype(int) - image[rows, cols][inner]
  assert np.abs(error).max() <= 2  # Two roundings of a ramp.


def test_the_identity_is_exact():
  image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
  window = np.array([21.0, 19.0, 30.0])
  patch = crops.crop_window(image, window, 30)
  pixels, rows, cols = crops.place_window(patch, window, (60, 40))
  np.testing.assert_array_equal(pixels, image[rows, cols])
  assert pixels.shape == (30, 30, 3)


def test_a_window_beside_the_frame_is_refused():
  patch = np.zeros((8, 8, 3), np.uint8)
  with pytest.raises(ValueError, match="holds no pixel"):
    crops.place_window(patch, np.array([-50.0, 0.0, 10.0]), (60, 40))


@pytest.mark.parametrize("part", [(0.5, 0.5, 1.0), (0.53, 0.61, 0.47)])
@pytest.mark.parametrize(
  "stored, side", [(512, 128), (84, 128), (96, 64), (64, 64), (131, 50)]
)
def test_nothing_under_the_mask_is_outside_the_networks_mask(
  stored, side, part
):
  part = np.float32(part)
  random = np.random.default_rng(0)
  rows, columns = np.mgrid[:stored, :stored] / stored - 0.5
  mask = rows**2 + columns**2 < 0.3**2
  window, noise = random.integers(0, 256, (2, stored, stored, 3), np.uint8)
  other = np.where(mask[..., None], noise, window)
  one, cover = crops.network_window(window, mask, side, part)
  two, same = crops.network_window(other, mask, side, part)
  np.testing.assert_array_equal(cover, same)
  np.testing.assert_array_equal(one[~cover], two[~cover])
  assert one.shape == (side, side, 3) and cover.shape == (side, side)
  # No more than the filter needs: two pixels of the coarser grid, and rounding.
  coarser = max(1 / stored, part[2] / side)
  centres = ((np.arange(side) + 0.5) / side - 0.5) * part[2]
  distance = np.hypot(
    *np.meshgrid(centres + part[0] - 0.5, centres + part[1] - 0.5)
  )
  if stored != side or part[2] < 1:
    assert not cover[distance > 0.3 + (2.5 + 2**0.5) * coarser].any()


def test_a_part_of_a_window_is_a_window():
  image = _ramp(60, 80)
  window, part = np.array([40.0, 30.0, 40.0]), np.float32([0.6, 0.4, 0.5])
  stored = crops.crop_window(image, window, 40)
  mask = np.ones((40, 40), bool)
  got, cover = crops.network_window(stored, mask, 20, part)
  inner = crops.inside(window, part)
  np.testing.assert_allclose(inner, [44, 26, 20], atol=1e-4)
  np.testing.assert_array_equal(got, crops.crop_window(image, inner, 20))
  assert cover.all()


def test_cameras_of_a_part_see_it_where_it_is():
  random = np.random.default_rng(0)
  pose = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
  intrinsics = np.tile(
    np.float32([[2.5, 0, 0.5], [0, 2.5, 0.45], [0, 0, 1]]), (3, 1, 1)
  )
  part = np.float32([[0.5, 0.5, 1], [0.6, 0.7, 0.5], [0.4, 0.55, 0.8]])
  whole = types.Cameras(pose, intrinsics)
  points = random.uniform(-0.3, 0.3, (3, 7, 3)).astype(np.float32) + [0, 0, 2]

  def seen(cameras):
    local = points @ cameras.intrinsics.swapaxes(1, 2)
    return local[..., :2] / local[..., 2:]

  expected = (seen(whole) - part[:, None, :2]) / part[:, None, 2:] + 0.5
  np.testing.assert_allclose(
    seen(crops.of_part(whole, part)), expected, atol=1e-5
  )
  np.testing.assert_array_equal(whole.intrinsics, intrinsics)
