"""Masks hide the mouth's opening; the window and its cameras agree."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, spatial

from pir_jax.face import fitting, hulls, masks, morphable, windows
from pir_jax.geometry import cameras
from pir_jax.media import crops

RESOLUTION = 96
FACE = masks.Config(region="face")


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
  window = windows.window(model, fit)
  np.testing.assert_array_equal(window, windows.window(model, still))
  for mask in (masks.face_mask, masks.head_mask):
    np.testing.assert_array_equal(
      mask(model, fit, window, RESOLUTION),
      mask(model, still, window, RESOLUTION),
    )


def test_mask_covers_chin_and_lips_at_the_widest(model):
  fit = _fit()
  window = windows.window(model, fit)
  mask = masks.face_mask(model, fit, window, RESOLUTION, FACE)
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
  window = windows.window(model, fit)
  face = masks.face_mask(model, fit, window, RESOLUTION, FACE)
  head = masks.head_mask(model, fit, window, RESOLUTION)
  assert (head >= face).all()
  assert head.mean() > 1.3 * face.mean()


def test_mask_is_one_convex_piece(model):
  fit = _fit()
  mask = masks.face_mask(model, fit, windows.window(model, fit), RESOLUTION)[0]
  assert ndimage.label(mask)[1] == 1
  rows = mask[mask.any(1)]
  assert (
    np.abs(np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int))).sum(1) == 2
  ).all()


def test_window_holds_the_mask_at_the_share_asked(model):
  fit = _fit()
  window = windows.window(model, fit)
  assert (np.ptp(window, axis=0) == 0).all()
  mask = masks.face_mask(model, fit, window, RESOLUTION, FACE)
  rows = np.flatnonzero(mask.any((0, 2)))
  # One pixel at each end is rounding.
  share = masks.Config().fill
  assert np.ptp(rows) / RESOLUTION == pytest.approx(share, abs=0.03)


def test_no_mask_is_cut_when_the_head_jumps(model):
  x = np.where(np.arange(120) < 60, 0.0, 0.9)
  fit = _fit(depth=(2.7,) * 120, x=tuple(x))
  window = windows.window(model, fit)
  assert np.ptp(window[:, 0]) > 10, "the window follows"
  mask = masks.face_mask(model, fit, window, 64, near=_near(25, 120))
  edge = np.concatenate(
    [mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], axis=1
  )
  assert not edge.any()


def test_window_follows_a_zoom(model):
  depth = np.linspace(2.0, 4.0, 200).astype(np.float32)
  fit = _fit(depth=depth, x=np.zeros(200, np.float32))
  window = windows.window(model, fit)
  assert window[0, 2] > 1.5 * window[-1, 2]
  assert np.abs(np.diff(window[:, 2])).max() < 3


def test_cameras_see_the_window(model):
  fit = _fit()
  window = windows.window(model, fit)
  window[1] += [3, -5, 7]
  points = jnp.broadcast_to(model.landmark_mean, (3, 468, 3))
  seen, _ = cameras.project(points, windows.cameras_of(fit, window))
  for frame in range(3):
    corner = window[frame, :2] - window[frame, 2] / 2
    pixels = _pixels(model.landmark_mean, fit, frame)
    np.testing.assert_allclose(
      seen[frame], (pixels - corner) / window[frame, 2], atol=1e-4
    )


def test_spans_are_the_polygon():
  points = np.array([[2.0, 1.0], [9.0, 3.0], [7.0, 9.0], [1.0, 6.0]])
  lines = spatial.ConvexHull(points).equations
  square = np.float32([7, 5, 24])
  got = np.zeros((24, 24), bool)
  hulls._join(got, hulls._spans(lines, square, 24)[None])
  y, x = np.mgrid[:24, :24] + 0.5 + np.reshape([5 - 12, 7 - 12], (2, 1, 1))
  inside = np.ones((24, 24), bool)
  for a, b in zip(points, np.roll(points, -1, 0), strict=True):
    inside &= (b - a)[0] * (y - a[1]) - (b - a)[1] * (x - a[0]) >= 0
  np.testing.assert_array_equal(got, inside)


def test_a_window_beside_the_polygon_is_empty():
  lines = spatial.ConvexHull(np.eye(3)[:, :2] * 9).equations
  for centre in ((40, 4), (-40, 4), (4, 40), (4, -40)):
    square = np.float32([*centre, 20])
    first, last = hulls._spans(lines, square, 12)
    np.testing.assert_array_equal(first, last)


def _near(fps, num_frames, seconds=0.5, frames=None, absent=()):
  present = ~np.isin(np.arange(num_frames), absent)
  times = np.arange(num_frames) / fps
  frames = np.arange(num_frames) if frames is None else frames
  shot = np.zeros(len(times), int)
  return masks.neighbours(times, present, frames, seconds, shot)


@pytest.mark.parametrize("fps", [12, 25, 30000 / 1001, 60])
def test_neighbours_are_those_within_the_time(fps):
  near = _near(fps, 100, frames=np.array([0, 50, 99]), absent=(50, 51))
  reach = int((0.5 + 1e-3) * fps)  # A millisecond is a container's rounding.
  np.testing.assert_array_equal(near[0], np.arange(reach + 1))
  expected = np.setdiff1d(np.arange(50 - reach, 51 + reach), [51])
  np.testing.assert_array_equal(near[1], expected)
  np.testing.assert_array_equal(near[2], np.arange(99 - reach, 100))


def test_neighbours_do_not_reach_over_a_cut():
  times, shot = np.arange(10) / 25, np.repeat([0, 1], 5)
  near = masks.neighbours(
    times, np.ones(10, bool), np.array([4, 5]), 0.08, shot
  )
  np.testing.assert_array_equal(near[0], [2, 3, 4])
  np.testing.assert_array_equal(near[1], [5, 6, 7])


def test_a_window_jumps_at_a_cut_and_nowhere_else(model):
  x = (0.0,) * 30 + (1.5,) * 30
  fit = _fit(depth=(2.7,) * 60, x=x)
  shot = np.repeat([0, 1], 30)
  window = windows.window(model, fit, shot=shot)
  # Each shot stands still, so its window does.
  np.testing.assert_array_equal(window[:30], np.tile(window[:1], (30, 1)))
  np.testing.assert_array_equal(window[30:], np.tile(window[-1:], (30, 1)))
  assert np.abs(windows.window(model, fit)[25] - window[25]).max() > 1


def test_a_section_keeps_the_windows_of_the_one_before_where_it_can(model):
  fit = _fit(depth=(2.7,) * 60, x=tuple(np.linspace(0, 0.02, 60)))
  whole = windows.window(model, fit)
  later = windows.window(
    model, fit._replace(pose=fit.pose[20:]), before=whole[20:40] + 0.5
  )
  np.testing.assert_array_equal(later, np.tile(whole[:1] + 0.5, (40, 1)))


@pytest.mark.parametrize("lower", [False, True])
def test_a_window_turns_slowly_into_that_of_the_next_section(model, lower):
  # The head stands still, then moves by a third of its size.
  x = np.interp(np.arange(220), [100, 200], [0, 0.3])
  fit = _fit(depth=(2.7,) * 220, x=tuple(x))

  def squares(frames, before=(None, None)):
    some = fit._replace(pose=fit.pose[frames])
    window = windows.window(model, some, before=before[0])
    part = windows.mask_window(model, some, window, before=before[1])
    return window, crops.inside(window, part)

  first = squares(slice(0, 132))
  second = squares(slice(68, 220), tuple(x[68:132] for x in first))
  kind = int(lower)
  joined = np.concatenate([first[kind][:100], second[kind][32:]])
  # No jump: no more than the head itself moves.
  moved = np.abs(np.diff(joined, axis=0)).max(1)
  assert 0 < moved.max() < 8
  assert np.abs(joined[-1] - joined[0]).max() > 20
  height = masks.heights(model, fit)
  points = masks.face_points(model, fit, masks.Config())
  if lower:
    points = points[:, points[0, :, 1] > np.median(points[0, :, 1])]
  half = joined[:, None, 2:] / 2
  outside = np.abs(points - joined[:, None, :2]) - half
  assert (outside.max((1, 2)) < -0.03 * height).all()


def test_a_cut_takes_the_next_section_s_window_at_once(model):
  fit = _fit(depth=(2.7,) * 60, x=(0.0,) * 30 + (1.5,) * 30)
  shot = np.repeat([0, 1], 30)
  alone = windows.window(model, fit, shot=shot)
  before = np.tile(alone[:1] + 3, (40, 1))
  window = windows.window(model, fit, shot=shot, before=before)
  np.testing.assert_array_equal(window[30:], alone[30:])
  np.testing.assert_array_equal(window[:20], before[:20])


def test_a_spread_mask_is_the_union_of_its_neighbours(model):
  fit = _fit(depth=(2.7,) * 8, x=tuple(np.linspace(0, 0.5, 8)))
  window = np.tile(windows.window(model, fit)[:1], (8, 1))
  alone = masks.face_mask(model, fit, window, RESOLUTION, FACE)
  near = _near(25, 8, 0.08)
  spread = masks.face_mask(model, fit, window, RESOLUTION, FACE, near=near)
  for mask, frames in zip(spread, near, strict=True):
    np.testing.assert_array_equal(mask, alone[frames].any(0))


def test_masks_do_not_depend_on_how_many_are_asked_for(model):
  x = 0.1 * np.sin(np.arange(30))
  fit = _fit(depth=(2.7,) * 30, x=tuple(x))
  window = windows.window(model, fit)
  whole = masks.face_mask(model, fit, window, 48, near=_near(25, 30))
  for part in (np.array([3]), np.arange(10, 20), np.array([29, 28, 27])):
    near = _near(25, 30, frames=part)
    got = masks.face_mask(model, fit, window[part], 48, frames=part, near=near)
    np.testing.assert_array_equal(got, whole[part])


def _nodding(angle):
  """A head that nods by some angles, one a frame."""
  fit = _fit(depth=(2.7,) * len(angle), x=(0.0,) * len(angle))
  nod = np.tile(np.eye(3, dtype=np.float32), (len(angle), 1, 1))
  nod[:, 1, 1] = nod[:, 2, 2] = np.cos(angle)
  nod[:, 2, 1] = np.sin(angle)
  nod[:, 1, 2] = -nod[:, 2, 1]
  pose = fit.pose.copy()
  pose[:, :3] = nod @ pose[:, :3]
  return fit._replace(pose=pose)


@pytest.mark.parametrize("region", masks.REGIONS)
def test_a_nod_shorter_than_the_spread_leaves_no_trace(model, region):
  """Two poses in turn, in whatever order: always both are near."""
  order = np.random.default_rng(0).integers(0, 2, 60)
  order[::4], order[1::4] = 0, 1
  fit = _nodding(0.05 * order)
  window = windows.window(model, fit)
  config = masks.Config(region=region)
  alone = masks.face_mask(model, fit, window, RESOLUTION, config)
  assert (alone != alone[0]).any(), "the nod shows in a frame's own hull"
  near = _near(25, 60)
  spread = masks.face_mask(model, fit, window, RESOLUTION, config, near=near)
  assert (spread == spread[0]).all()


def test_the_eyes_are_left_in_every_pose(model):
  """The lips are covered too, where another moment's eyes come near them."""
  angle = 0.35 * np.sin(np.linspace(0, 2 * np.pi, 24))
  fit = _nodding(angle)
  window = windows.window(model, fit)
  near = _near(25, 24)
  args = model, fit, window, RESOLUTION
  face, lower = (
    masks.face_mask(*args, config, near=near) for config in (FACE, None)
  )
  assert (lower <= face).all()
  points = np.asarray(morphable.landmarks(model, fit.identity, np.zeros(52)))
  for frame in range(24):
    corner = window[frame, :2] - window[frame, 2] / 2
    place = (_pixels(points, fit, frame) - corner) / window[frame, 2]
    column, row = (place * RESOLUTION).astype(int).T
    # Lids, pupils and brows stay; lips and chin are covered.
    assert not lower[frame, row, column][[145, 374, 159, 386, 105, 334]].any()
    assert lower[frame, row, column][[0, 13, 14, 17, 152]].all()


def test_the_lower_region_leaves_the_eyes_and_covers_the_jaw(model):
  fit = _fit()
  window = windows.window(model, fit)
  np.testing.assert_array_equal(window, windows.window(model, fit, config=FACE))
  lower = masks.face_mask(model, fit, window, RESOLUTION)
  face = masks.face_mask(model, fit, window, RESOLUTION, FACE)
  assert (lower <= face).all()
  assert 0.35 * face.sum() < lower.sum() < 0.75 * face.sum()
  # Below the mouth both are the same.
  rows = np.flatnonzero(face[0].any(1))
  bottom = rows[-len(rows) // 4 :]
  np.testing.assert_array_equal(lower[0, bottom], face[0, bottom])
  points = np.asarray(morphable.landmarks(model, fit.identity, np.zeros(52)))
  corner = window[0, :2] - window[0, 2] / 2
  place = (_pixels(points, fit, 0) - corner) / window[0, 2] * RESOLUTION
  top = np.flatnonzero(lower[0].any(1))[0]
  # Pupils' height above it, the tip of the nose below it.
  assert place[[159, 386], 1].max() < top < place[4, 1]
  with pytest.raises(ValueError, match="choose one of face, lower"):
    masks.face_mask(model, fit, window, RESOLUTION, masks.Config(region="nose"))


@pytest.mark.parametrize("side, extent", [(64, 150.0), (64, 64.0), (96, 41.3)])
def test_no_pixel_outside_a_mask_holds_anything_of_the_hull(side, extent):
  """From the source's pixels on, whatever the window is resampled by."""
  random = np.random.default_rng(0)
  angle = np.linspace(0, 2 * np.pi, 9)[:-1]
  points = 100 + 0.2 * extent * np.stack([np.cos(angle), np.sin(angle)], -1)
  square = np.float32([101.7, 98.4, extent])
  margin = np.float32([2.0])
  points = points[None].astype(np.float32)
  (mask,) = hulls.rasterise(points, margin, square[None], side, resampled=True)
  (plain,) = hulls.rasterise(points, margin, square[None], side)
  lines = hulls._grown(points[0], 2.0)
  corners = np.stack(np.meshgrid(*[np.arange(201)] * 2), -1)
  inside = (corners @ lines[:, :2].T + lines[:, 2] <= 0).all(-1)
  touched = (
    inside[1:, 1:] | inside[1:, :-1] | inside[:-1, 1:] | inside[:-1, :-1]
  )
  frame, noise = random.integers(0, 256, (2, 200, 200, 3), np.uint8)
  other = np.where(touched[..., None], noise, frame)
  one, two = (crops.crop_window(x, square, side) for x in (frame, other))
  np.testing.assert_array_equal(one[~mask], two[~mask])
  assert (one[~plain] != two[~plain]).any()


def test_the_square_around_the_mask_holds_it_and_lies_in_the_window(model):
  angle = 0.2 * np.sin(np.linspace(0, 6 * np.pi, 75))
  fit = _nodding(angle)
  window = windows.window(model, fit)
  part = windows.mask_window(model, fit, window)
  assert (part[:, 2] < 0.85).all(), "larger than in the whole window"
  half = part[:, 2:] / 2
  assert (part[:, :2] - half > -1e-6).all()
  assert (part[:, :2] + half < 1 + 1e-6).all()
  mask = masks.face_mask(model, fit, window, RESOLUTION, near=_near(25, 75))
  for frame in range(75):
    rows, columns = (np.flatnonzero(mask[frame].any(i)) for i in (1, 0))
    x, y, side = part[frame] * RESOLUTION
    # A rim is left, from which light and the seam are matched.
    rim = 0.03 * side
    assert rows[0] > y - side / 2 + rim and rows[-1] + 1 < y + side / 2 - rim
    assert columns[0] > x - side / 2 + rim
    assert columns[-1] + 1 < x + side / 2 - rim


def test_around_the_whole_face_it_is_the_window(model):
  fit = _fit()
  part = windows.mask_window(
    model, fit, windows.window(model, fit), config=FACE
  )
  np.testing.assert_array_equal(part, [[0.5, 0.5, 1]] * 3)
