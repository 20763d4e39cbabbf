"""The window is where the head is, whatever the browser's canvas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.geometry import cameras as cameras_lib
from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import framing
from pir_jax.types import Cameras

VIEW = viewer_lib.Viewpoint(
  10.0,
  -5.0,
  2.5,
  np.float32([[3.0, 0, 0.45], [0, 3.5, 0.4], [0, 0, 1]]),
)


def eye_at(turn=10.0, distance=2.5, fov=0.6, width=400, height=200):
  view = viewer_lib.around(
    VIEW._replace(turn=turn, distance=distance), np.zeros(1)
  )
  return framing.Eye(np.asarray(view.pose[0], float), fov, width, height)


def test_a_viewpoint_s_own_window_is_its_whole_picture():
  window = framing.window_of(VIEW)
  eye = eye_at(fov=2 * math.atan(0.5 / 2.0))
  part = framing.part_with_head(eye, window)
  # The same intrinsics, whatever the canvas around it.
  np.testing.assert_allclose(
    part.camera.intrinsics, VIEW.intrinsics, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("fov", [0.2, 0.6, 1.2])
@pytest.mark.parametrize("distance", [1.2, 2.5, 6.0])
def test_a_part_shows_what_the_whole_canvas_would(fov, distance):
  eye = eye_at(30.0, distance, fov)
  part = framing.part_with_head(eye, framing.window_of(VIEW))
  focal = 0.5 / math.tan(fov / 2)
  k = np.float32([[focal / 2, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
  whole = Cameras(np.float32(eye.pose)[None], k[None])
  points = jnp.array([[[0.0, 0.0, 0.0], [0.1, -0.2, 0.3], [-0.2, 0.1, 0.1]]])
  want, _ = cameras_lib.project(points, whole)
  inside, _ = cameras_lib.project(
    points, Cameras(*(x[None] for x in part.camera))
  )
  left, top, right, bottom = part.box
  placed = inside * np.array([right - left, bottom - top]) + np.array(
    [left, top]
  )
  np.testing.assert_allclose(placed, want, atol=1e-5)
  assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_what_is_behind_beside_or_too_near_is_no_part():
  window = framing.window_of(VIEW)
  eye = eye_at()
  turned = eye.pose @ np.diag([-1.0, 1, -1, 1])
  assert framing.part_with_head(eye._replace(pose=turned), window) is None
  aside = eye.pose.copy()
  aside[:3, 3] += 50 * eye.pose[:3, 0]
  assert framing.part_with_head(eye._replace(pose=aside), window) is None
  assert framing.part_with_head(eye_at(distance=0.2), window) is None


def test_a_picture_fills_its_part_and_the_rest_is_black():
  eye = eye_at(width=400, height=200)
  part = framing.Part(None, (0.25, 0.1, 0.5, 0.6))
  white = np.full((4, 4, 3), 255, np.uint8)
  canvas = framing.on_canvas(white, part, eye, smooth=False)
  assert canvas.shape == (200, 400, 3)
  assert np.all(canvas[20:120, 100:200] == 255)
  assert canvas.sum() == 255 * 3 * 100 * 100
  assert not framing.on_canvas(None, None, eye, smooth=True).any()
  # Not more rows than a browser can be sent often.
  large = framing.on_canvas(
    white, part, eye_at(width=3000, height=1440), smooth=True
  )
  assert large.shape == (720, 1500, 3)


@pytest.mark.parametrize(
  "change",
  [{"fov": math.nan}, {"fov": 0.0}, {"width": 0}, {"width": 10**9}],
)
def test_what_no_browser_has_is_not_rendered(change):
  assert framing.is_sane(eye_at())
  assert not framing.is_sane(eye_at()._replace(**change))
  pose = eye_at().pose * math.nan
  assert not framing.is_sane(eye_at()._replace(pose=pose))
