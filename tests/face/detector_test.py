"""The two networks on a frame of the packaged clip."""

import av
import numpy as np
import pytest
from scipy import ndimage

from pir_jax import assets
from pir_jax.face import detector


@pytest.fixture(scope="module")
def frame():
  with av.open(str(assets.fetch("demo_video"))) as video:
    return next(video.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def tracker():
  return detector.Tracker()


def test_finds_the_speaker(frame, tracker):
  points, presence = tracker.landmarks(frame)
  assert presence > 0.9
  height = points[152, 1] - points[10, 1]
  assert 45 < height < 65  # The speaker's face is about 54 px high.
  # Eyes above nose above mouth above chin; the right eye on the left.
  assert points[33, 1] < points[1, 1] < points[13, 1] < points[152, 1]
  assert points[33, 0] < points[263, 0]
  assert points[1, 2] < points[234, 2]  # The nose is nearer than the ear.


def test_landmarks_move_with_the_picture(frame, tracker):
  points, _ = tracker.landmarks(frame)
  moved = np.pad(frame, ((16, 0), (40, 0), (0, 0)))
  got, _ = tracker.landmarks(moved)
  # The detector sees the face elsewhere; the second pass of the mesh takes
  # out all but a fraction of a pixel.
  error = np.abs(got[:, :2] - points[:, :2] - [40, 16])
  assert error.mean() < 0.5


def test_known_box_chooses_the_face(frame, tracker):
  faces = tracker.detect(frame)
  assert len(faces) == 2
  for face in faces:
    points, presence = tracker.landmarks(frame, face[:4])
    assert presence > 0.5
    assert detector.overlap(detector.box_of(points), face[:4]) > 0.4


def test_no_face_is_nan(tracker):
  grey = np.full((120, 160, 3), 128, np.uint8)
  points, presence = tracker.landmarks(grey)
  assert np.isnan(points).all() and presence == 0


def test_small_face_in_a_long_frame_is_found(frame, tracker):
  # Eight times as wide as high: in the whole frame the face is 3 px wide.
  wide = np.pad(frame, ((0, 0), (0, 7 * 240), (0, 0)))
  assert len(tracker.detect(wide)) >= 1


@pytest.mark.parametrize("side", [100, 200])
def test_all_nine_faces_of_a_call_are_found(frame, tracker, side):
  points, _ = tracker.landmarks(frame)
  region = detector.Region(*map(float, points[1, :2]), 110.0, 0.0)
  tile = detector.sample(frame, region, side)
  wall = np.tile(
    np.pad(tile, ((0, 0), (side // 3, side // 3), (0, 0))), (3, 3, 1)
  )
  boxes = tracker.detect(wall)[:, :4]
  middles = (boxes[:, :2] + boxes[:, 2:]) / 2
  columns, rows = (middles // (wall.shape[1] / 3, side)).T
  assert {*zip(rows, columns, strict=True)} == {
    (row, column) for row in range(3) for column in range(3)
  }
  assert (np.diff(boxes[:, 3] - boxes[:, 1]) <= 1e-3).all()  # Largest first.


def test_sample_is_the_identity_on_an_upright_square():
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  region = detector.Region(8.0, 8.0, 16.0, 0.0)
  np.testing.assert_allclose(
    detector.sample(image, region, 16), image, atol=1e-3
  )


def _slow_sample(image, region, size):
  """The same in double precision: block means, then bilinear."""
  shrink = max(int(region.side / size), 1)
  rows, columns = (n // shrink * shrink for n in image.shape[:2])
  blocks = image[:rows, :columns].astype(float)
  blocks = blocks.reshape(rows // shrink, shrink, columns // shrink, shrink, 3)
  step = ((np.arange(size) + 0.5) / size - 0.5) * region.side
  u, v = np.meshgrid(step, step)
  cos, sin = np.cos(region.angle), np.sin(region.angle)
  x = (region.x + cos * u - sin * v) / shrink - 0.5
  y = (region.y + sin * u + cos * v) / shrink - 0.5
  planes = np.moveaxis(blocks.mean((1, 3)), -1, 0)
  drawn = [
    ndimage.map_coordinates(plane, [y, x], order=1, mode="grid-constant")
    for plane in planes
  ]
  return np.stack(drawn, -1)


@pytest.mark.parametrize(
  "region",
  [
    detector.Region(50.3, 40.2, 30.7, 0.3),
    detector.Region(60.0, 48.0, 70.0, -0.5),
    detector.Region(10.0, 90.0, 90.0, 2.0),
    detector.Region(-5.0, 20.0, 40.0, 0.0),
    detector.Region(119.0, 95.0, 160.0, 0.1),
  ],
)
def test_sample_is_bilinear_with_black_around(region):
  noise = np.random.default_rng(0).uniform(0, 255, (96, 120, 3))
  image = ndimage.gaussian_filter(noise, (2, 2, 0)).astype(np.uint8)
  got = detector.sample(image, region, 24)
  # Rounded to whole levels after each of two steps.
  assert np.abs(got - _slow_sample(image, region, 24)).max() < 2


def test_sample_far_outside_is_black():
  image = np.full((20, 20, 3), 200, np.uint8)
  for x, y in ((500.0, 10.0), (10.0, -500.0)):
    assert not detector.sample(image, detector.Region(x, y, 9.0, 0.2), 8).any()


def test_sample_turns_by_the_angle():
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  region = detector.Region(8.0, 8.0, 16.0, np.pi / 2)
  # The square's x axis is the frame's y axis. A value just below a whole
  # level, as 119.999, is cut down to it.
  np.testing.assert_allclose(
    detector.sample(image, region, 16).astype(int), np.rot90(image, 1), atol=1
  )
