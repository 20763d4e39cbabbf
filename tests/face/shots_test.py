"""Cuts are found, and nothing else is taken for one."""

import numpy as np
import pytest
from scipy import ndimage

from pir_jax.face import shots

HEIGHT, WIDTH = 144, 256


def scene(seed):
  """A wide picture with large and small things in it."""
  rng = np.random.default_rng(seed)
  picture = np.zeros((2 * HEIGHT, 4 * WIDTH, 3))
  for size in (4, 10, 25):
    noise = rng.normal(size=picture.shape)
    noise = ndimage.gaussian_filter(noise, (size, size, 0))
    picture += noise / noise.std()
  return np.clip(128 + 35 * picture, 0, 255)


def view(picture, x=0.0, y=0.0, zoom=1.0):
  """A frame of it, looking at a place off its middle."""
  rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
  rows = (rows - HEIGHT / 2) / zoom + y + picture.shape[0] / 2
  columns = (columns - WIDTH / 2) / zoom + x + picture.shape[1] / 2
  frame = [
    ndimage.map_coordinates(picture[..., k], [rows, columns], order=1)
    for k in range(3)
  ]
  return np.stack(frame, -1).astype(np.uint8)


def begins(frames):
  return [k for k, (_, first) in enumerate(shots.split(iter(frames))) if first]


A, B = scene(0), scene(1)


def test_a_cut_is_found_at_its_frame_and_frames_come_out_as_they_went_in():
  frames = [view(A, x) for x in range(6)] + [view(B, x) for x in range(7)]
  got = list(shots.split(iter(frames)))
  assert [k for k, (_, first) in enumerate(got) if first] == [0, 6]
  assert all(a is b for (a, _), b in zip(got, frames, strict=True))


def test_shots_may_be_short_and_return():
  first, second = view(A), view(B)
  frames = [first] * 4 + [second] * 3 + [first] * 4
  assert begins(frames) == [0, 4, 7]


@pytest.mark.parametrize(
  "frames",
  [
    [view(A, x=16 * k) for k in range(10)],
    [view(A, y=6 * k) for k in range(8)],
    [view(A, zoom=1.08**k) for k in range(10)],
    [view(A, x=3 * k, zoom=0.95**k) for k in range(10)],
  ],
  ids=["pan", "tilt", "zoom in", "zoom out"],
)
def test_moving_cameras_are_no_cut(frames):
  assert begins(frames) == [0]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length):
  frames = [view(A, x=k) for k in range(12)]
  for k in range(5, 5 + length):
    frames[k] = np.clip(frames[k] * 0.5 + 200, 0, 255).astype(np.uint8)
  assert begins(frames) == [0]


def test_a_change_of_light_is_no_cut():
  dark = (view(A) * 0.4).astype(np.uint8)
  fade = [(view(A) * w).astype(np.uint8) for w in np.linspace(1, 0.1, 12)]
  assert begins([view(A)] * 4 + [dark] * 4) == [0]
  assert begins(fade) == [0]


def test_a_whip_pan_is_no_cut():
  # Every frame shows something else: which of them would be the cut?
  frames = [view(A, x=70 * k - 300) for k in range(9)]
  assert begins([frames[0]] * 3 + frames + [frames[-1]] * 3)[:1] == [0]
  assert len(begins([frames[0]] * 3 + frames + [frames[-1]] * 3)) <= 1


def test_empty_and_blank_videos():
  assert begins([]) == []
  assert begins([np.zeros((8, 8, 3), np.uint8)] * 4) == [0]
  assert begins([view(A)] * 3 + [np.zeros_like(view(A))] * 4) == [0, 3]
