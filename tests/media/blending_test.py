"""A pasted window meets its frame in light, and touches nothing beside it."""

import numpy as np
import pytest

from pir_jax.media import blending, crops

WINDOW = np.float32([61.3, 50.6, 64.0])


def _scene(rows=100, cols=120, level=0.5):
  """A smooth picture in linear light."""
  y, x = np.mgrid[:rows, :cols]
  light = level + 0.15 * np.sin(x / 17) * np.cos(y / 13)
  return np.stack([light, 0.8 * light, 0.6 * light + 0.05], -1)


def _bytes(light):
  return np.uint8(np.rint(_curve(light) * 255))


def _curve(light):
  return np.where(
    light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
  )


def _disc(side, radius=0.3, centre=(0.5, 0.5)):
  y, x = (np.mgrid[:side, :side] + 0.5) / side
  return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def _painted(light, window, side):
  """The window of a picture as a network would paint it."""
  return crops.crop_window(_bytes(light), window, side) / np.float32(127.5) - 1


def _covered(frame, window, mask):
  """Pixels of the frame whose centres the mask covers; by brute force."""
  rows, cols, _ = frame.shape
  x, y, extent = map(float, window)
  column = np.floor(
    (np.arange(cols) + 0.5 - x + extent / 2) / extent * len(mask)
  )
  row = np.floor((np.arange(rows) + 0.5 - y + extent / 2) / extent * len(mask))
  seen = (0 <= row)[:, None] & (row < len(mask))[:, None]
  seen = seen & (0 <= column) & (column < len(mask))
  row, column = (
    np.clip(v, 0, len(mask) - 1).astype(int) for v in (row, column)
  )
  return seen & mask[row[:, None], column]


@pytest.mark.parametrize("side", [9, 48, 64, 150])
@pytest.mark.parametrize(
  "window",
  [(61.3, 50.6, 64.0), (5.0, 90.2, 70.5), (60.0, 50.0, 240.0), (61, 50, 3.4)],
)
@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.15, 0.9)])
def test_out_of_reach_every_bit_is_the_frames_own(side, window, centre):
  random = np.random.default_rng(side)
  frame = random.integers(0, 256, (100, 120, 3), np.uint8)
  window = np.float32(window)
  mask = _disc(side, centre=centre)
  painted = random.uniform(-1.2, 1.2, (side, side, 3)).astype(np.float32)
  result = blending.paste(frame, window, painted, mask)
  covered = _covered(
    frame, window, blending.changed_region(mask, side, window[2])
  )
  np.testing.assert_array_equal(result[~covered], frame[~covered])
  if side >= 48 and window[2] > 60 and centre == (0.5, 0.5):
    assert (result != frame).any(-1)[covered].mean() > 0.4


def test_an_empty_mask_gives_the_frame_and_a_full_one_the_windows_middle():
  frame = _bytes(_scene())
  painted = np.full((64, 64, 3), 0.25, np.float32)
  none = np.zeros((64, 64), bool)
  result = blending.paste(frame, WINDOW, painted, none)
  np.testing.assert_array_equal(result, frame)
  result = blending.paste(frame, WINDOW, painted, ~none)
  # Nothing outside to compare with: the colours are left as they are.
  assert (result[40:60, 50:70] == round(1.25 * 127.5)).all()
  np.testing.assert_array_equal(result[:18], frame[:18])


@pytest.mark.parametrize("gain", [(0.8, 0.8, 0.8), (0.85, 1.0, 1.2)])
@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.5, 0.8)])
def test_a_gain_of_each_colour_is_taken_back(gain, centre):
  light = _scene()
  frame = _bytes(light)
  painted = _painted(light * gain, WINDOW, 64)
  mask = _disc(64, centre=centre)
  before = np.abs(painted - _painted(light, WINDOW, 64)).max() * 127.5
  result = blending.paste(frame, WINDOW, painted, mask)
  error = np.abs(result.astype(int) - frame)
  assert before > 15
  # Bytes before and after, and a picture resampled at a fraction of a pixel.
  assert error.max() <= 2


def test_light_that_falls_from_one_side_meets_at_both_edges():
  light = _scene()
  ramp = np.linspace(0.85, 1.15, light.shape[1])[:, None]
  frame = _bytes(light)
  painted = _painted(light * ramp, WINDOW, 64)
  mask = _disc(64)
  result = blending.paste(frame, WINDOW, painted, mask)
  plain = np.abs(_bytes(light * ramp).astype(int) - frame)
  error = np.abs(result.astype(int) - frame)
  covered = _covered(frame, WINDOW, _disc(64, 0.25))
  # Most of it goes near the edge; amid the mask the ramp is at 1 anyway.
  assert error[covered].mean() < 0.4 * plain[covered].mean()


@pytest.mark.parametrize("side", [48, 64, 150])
@pytest.mark.parametrize("extent", [64.0, 31.3, 90.0])
def test_nothing_of_the_frame_is_seen_under_the_mask(side, extent):
  window = np.float32([61.3, 50.6, extent])
  frame = _bytes(_scene())
  mask = _disc(side)
  inpainted = _painted(_scene() * 0.9, window, side)
  other = frame.copy()
  hidden = _covered(frame, window, mask)
  noise = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
  other[hidden] = noise[hidden]
  np.testing.assert_array_equal(
    blending.paste(frame, window, inpainted, mask),
    blending.paste(other, window, inpainted, mask),
  )


def test_the_true_window_leaves_no_trace():
  frame = np.random.default_rng(3).integers(0, 256, (90, 100, 3), np.uint8)
  window = np.float32([50, 45, 64])
  painted = crops.crop_window(frame, window, 64) / np.float32(127.5) - 1
  result = blending.paste(frame, window, painted, _disc(64))
  # Light goes to bytes and back through a table: at most one step is lost.
  assert np.abs(result.astype(int) - frame).max() <= 1


def test_black_and_white_are_defined():
  mask = _disc(32)
  window = np.float32([20, 20, 32])
  for level in (0, 255):
    frame = np.full((40, 40, 3), level, np.uint8)
    for value in (-1.0, 1.0):
      painted = np.full((32, 32, 3), value, np.float32)
      result = blending.paste(frame, window, painted, mask)
      bound = sorted((level, round((value + 1) * 127.5)))
      assert bound[0] <= result.min() and result.max() <= bound[1]


def test_opacity_is_whole_on_the_mask_and_falls_outside_and_at_the_edge():
  mask = np.zeros((32, 32), bool)
  mask[8:20, 6:20] = True
  opacity = blending.feather(mask)
  assert (opacity[mask] == 1.0).all()
  assert not opacity[~blending.changed_region(mask, 32)].any()
  assert (np.diff(opacity[14, 19:]) <= 0).all() and opacity[14, 24] == 0.0
  mask[:] = True
  opacity = blending.feather(mask)
  assert opacity[:, 0].max() < 0.2 and opacity[16, 16] == 1.0


@pytest.mark.parametrize("side", [128, 200, 512])
def test_cells_count_every_pixel(side):
  mask = np.zeros((side, side), bool)
  mask[side // 3, side // 2] = True
  cells = blending._cells(mask, 128)
  rows, columns = np.nonzero(cells)
  assert cells[side // 3 * 128 // side, side // 2 * 128 // side]
  assert len(rows) <= 4 and np.ptp(rows) <= 1 and np.ptp(columns) <= 1


def test_a_window_beside_the_frame_is_refused():
  frame = _bytes(_scene())
  painted = np.zeros((32, 32, 3), np.float32)
  with pytest.raises(ValueError, match="holds no pixel"):
    blending.paste(frame, np.float32([-50, 0, 10]), painted, _disc(32))
