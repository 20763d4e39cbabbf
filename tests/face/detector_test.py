"""The two networks on a frame of the packaged clip."""

import av
import numpy as np
import pytest

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


def test_sample_is_the_identity_on_an_upright_square():
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  region = detector.Region(8.0, 8.0, 16.0, 0.0)
  np.testing.assert_allclose(
    detector._sample(image, region, 16), image, atol=1e-3
  )


def test_sample_turns_by_the_angle():
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  region = detector.Region(8.0, 8.0, 16.0, np.pi / 2)
  # The square's x axis is the frame's y axis.
  np.testing.assert_allclose(
    detector._sample(image, region, 16), np.rot90(image, 1), atol=0.1
  )
