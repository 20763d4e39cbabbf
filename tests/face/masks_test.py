"""Masks hide the mouth's opening; the window and its cameras agree."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pir_jax.face import fitting, masks, morphable
from pir_jax.geometry import cameras

RESOLUTION = 96


@pytest.fixture(scope="module")
def model():
  return morphable.load()


def _fit(depth=(2.7, 2.7, 2.7), x=(0.0, 0.02, 0.04)):
  """A head facing the camera, sliding a little."""
  num_frames = len(depth)
  pose = np.tile(np.eye(4, dtype=np.float32), (num_frames, 1, 1))
  pose[:, :3, :3] = np.diag([1, -1, -1])
  pose[:, 0, 3], pose[:, 2, 3] = x, depth
  rng = np.random.default_rng(0)
  return fitting.Fit(
    identity=(0.3 * rng.normal(size=80)).astype(np.float32),
    expression=rng.uniform(size=(num_frames, 52)).astype(np.float32),
    pose=pose,
    focal=1500.0,
    centre=np.array([256, 256], np.float32),
    offset=np.zeros((468, 3), np.float32),
    residual=np.zeros(num_frames, np.float32),
    face_height=240.0,
  )


def _pixels(points, fit, frame):
  pose = fit.pose[frame]
  local = (points - pose[:3, 3]) @ pose[:3, :3]
  return fit.focal * local[:, :2] / local[:, 2:] + fit.centre


def test_mask_does_not_depend_on_the_expression(model):
  fit = _fit()
  still = fit._replace(expression=np.zeros_like(fit.expression))
  window = masks.window(model, fit)
  np.testing.assert_array_equal(window, masks.window(model, still))
  for mask in (masks.face_mask, masks.head_mask):
    np.testing.assert_array_equal(
      mask(model, fit, window, RESOLUTION),
      mask(model, still, window, RESOLUTION),
    )


def test_mask_covers_chin_and_lips_at_the_widest(model):
  fit = _fit()
  window = masks.window(model, fit)
  mask = masks.face_mask(model, fit, window, RESOLUTION)
  wide = np.zeros(52, np.float32)
  wide[morphable.EXPRESSION_NAMES.index("jawOpen")] = 1
  points = np.asarray(morphable.landmarks(model, fit.identity, wide))
  for frame in range(3):
    pixels = _pixels(points, fit, frame)
    corner = window[frame, :2] - window[frame, 2] / 2
    place = (pixels - corner) / window[frame, 2] * RESOLUTION
    column, row = place.astype(int).T
    assert mask[frame, row, column].all()
    # And the margin below the chin: 6 % of a face of 190 px in 512.
    assert mask[frame, row[152] + 2, column[152]]


def test_head_contains_face(model):
  fit = _fit()
  window = masks.window(model, fit)
  face = masks.face_mask(model, fit, window, RESOLUTION)
  head = masks.head_mask(model, fit, window, RESOLUTION)
  assert (head >= face).all()
  assert head.mean() > 1.3 * face.mean()


def test_mask_is_one_convex_piece(model):
  fit = _fit()
  mask = masks.face_mask(model, fit, masks.window(model, fit), RESOLUTION)[0]
  assert ndimage.label(mask)[1] == 1
  rows = mask[mask.any(1)]
  assert (
    np.abs(np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int))).sum(1) == 2
  ).all()


def test_window_holds_the_mask_at_the_share_asked(model):
  fit = _fit()
  window = masks.window(model, fit)
  assert (np.ptp(window, axis=0) == 0).all()
  mask = masks.face_mask(model, fit, window, RESOLUTION)
  rows = np.flatnonzero(mask.any((0, 2)))
  # One pixel at each end is rounding.
  share = masks.Config().fill
  assert np.ptp(rows) / RESOLUTION == pytest.approx(share, abs=0.03)


def test_no_mask_is_cut_when_the_head_jumps(model):
  x = np.where(np.arange(120) < 60, 0.0, 0.9)
  fit = _fit(depth=(2.7,) * 120, x=tuple(x))
  window = masks.window(model, fit)
  assert np.ptp(window[:, 0]) > 10, "the window follows"
  mask = masks.face_mask(model, fit, window, 64)
  edge = np.concatenate(
    [mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], axis=1
  )
  assert not edge.any()


def test_opacity_is_zero_at_the_masks_and_at_the_windows_edge():
  mask = np.zeros((1, 32, 32), bool)
  mask[0, 4:, 6:20] = True
  opacity = masks.feather(mask)[0]
  assert not opacity[~mask[0]].any()
  assert not opacity[4].any() and not opacity[-1].any()
  assert opacity.max() == 1.0


def test_window_follows_a_zoom(model):
  depth = np.linspace(2.0, 4.0, 200).astype(np.float32)
  fit = _fit(depth=depth, x=np.zeros(200, np.float32))
  window = masks.window(model, fit)
  assert window[0, 2] > 1.5 * window[-1, 2]
  assert np.abs(np.diff(window[:, 2])).max() < 3


def test_cameras_see_the_window(model):
  fit = _fit()
  window = masks.window(model, fit)
  window[1] += [3, -5, 7]
  points = jnp.broadcast_to(model.landmark_mean, (3, 468, 3))
  seen, _ = cameras.project(points, masks.cameras_of(fit, window))
  for frame in range(3):
    corner = window[frame, :2] - window[frame, 2] / 2
    pixels = _pixels(model.landmark_mean, fit, frame)
    np.testing.assert_allclose(
      seen[frame], (pixels - corner) / window[frame, 2], atol=1e-4
    )


def test_fill_is_the_polygon():
  points = np.array([[2.0, 1.0], [9.0, 3.0], [7.0, 9.0], [1.0, 6.0]])
  got = masks._fill(points.astype(np.float32), 12)
  y, x = np.mgrid[:12, :12] + 0.5
  inside = np.ones((12, 12), bool)
  for a, b in zip(points, np.roll(points, -1, 0), strict=True):
    inside &= (b - a)[0] * (y - a[1]) - (b - a)[1] * (x - a[0]) >= 0
  np.testing.assert_array_equal(got, inside)
