"""A short video played there and back."""

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.media import pingpong, video_reader


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp("video") / "disc.mp4"
  synthetic.write_video(path, num_frames=60)
  return path


def test_indices_turn_round_at_both_ends_without_a_repeat():
  found = pingpong.frame_indices(4, 10)
  np.testing.assert_array_equal(found, [0, 1, 2, 3, 2, 1, 0, 1, 2, 3])
  np.testing.assert_array_equal(pingpong.frame_indices(1, 3), [0, 0, 0])


def test_a_single_frame_is_shown_as_often_as_wanted(tmp_path):
  path = tmp_path / "one.mp4"
  synthetic.write_video(path, num_frames=1)
  shown = list(pingpong.read(path, np.zeros(1), 5))
  assert [i for i, _ in shown] == [0] * 5


def test_frames_are_the_ones_their_indices_name(video):
  frames = list(video_reader.read_frames(video))
  times = np.array([float(time) for time, _ in frames])
  shown = list(pingpong.read(video, times, 150))
  assert [i for i, _ in shown] == list(pingpong.frame_indices(60, 150))
  for index, image in shown:
    np.testing.assert_array_equal(image, frames[index][1])


def test_reading_from_the_middle_gives_the_same_frames(video):
  frames = list(video_reader.read_frames(video))
  late = list(video_reader.read_frames(video, start=float(frames[37][0])))
  assert [time for time, _ in late] == [time for time, _ in frames[37:]]
  np.testing.assert_array_equal(late[0][1], frames[37][1])
