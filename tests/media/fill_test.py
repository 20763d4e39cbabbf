"""A short video played for longer than it is."""

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.media import fill, video_reader
from pir_jax.types import InputError


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp("video") / "disc.mp4"
  synthetic.write_video(path, num_frames=60)
  return path


def test_indices_turn_round_at_both_ends_without_a_repeat():
  found = fill.frame_indices(4, 10)
  np.testing.assert_array_equal(found, [0, 1, 2, 3, 2, 1, 0, 1, 2, 3])
  np.testing.assert_array_equal(fill.frame_indices(1, 3), [0, 0, 0])


def test_a_single_frame_is_shown_as_often_as_wanted(tmp_path):
  path = tmp_path / "one.mp4"
  synthetic.write_video(path, num_frames=1)
  shown = list(fill.read(path, np.zeros(1), np.zeros(5, int)))
  assert [i for i, _ in shown] == [0] * 5


@pytest.mark.parametrize("way", fill.WAYS)
def test_frames_are_the_ones_their_indices_name(video, way):
  frames = list(video_reader.read_frames(video))
  times = np.array([float(time) for time, _ in frames])
  indices = fill.frame_indices(60, 150, way)
  shown = list(fill.read(video, times, indices))
  assert [i for i, _ in shown] == list(indices)
  for index, image in shown:
    np.testing.assert_array_equal(image, frames[index][1])


@pytest.mark.parametrize("most", [2**28, 2**10])
@pytest.mark.parametrize("way", fill.WAYS)
def test_times_may_be_known_when_the_video_was_shown(
  video, way, most, monkeypatch
):
  monkeypatch.setattr(fill, "_MAX_BYTES", most)
  frames = list(video_reader.read_frames(video))
  times = np.array([float(time) for time, _ in frames])
  asked = []

  def late():
    asked.append(len(shown))
    return times

  shown = []
  first = ((i, image) for i, (_, image) in enumerate(frames))
  for index, image in fill.read_endless(video, late, way, first):
    shown.append(index)
    np.testing.assert_array_equal(image, frames[index][1])
    if len(shown) == 150:
      break
  assert shown == list(fill.frame_indices(60, 150, way))
  assert asked == [60]


def test_the_other_ways():
  for way, expected in (
    ("loop", [0, 1, 2, 3, 0, 1]),
    ("hold", [0, 1, 2, 3, 3, 3]),
    ("cut", [0, 1, 2, 3]),
  ):
    np.testing.assert_array_equal(fill.frame_indices(4, 6, way), expected)
  with pytest.raises(InputError, match="fill=back must be one of bounce"):
    fill.frame_indices(4, 6, "back")


def test_a_long_wait_decodes_once(video, monkeypatch):
  frames = list(video_reader.read_frames(video))
  times = np.array([float(time) for time, _ in frames])
  opened = []
  real = video_reader.read_frames
  monkeypatch.setattr(
    fill.video_reader,
    "read_frames",
    lambda *args, **options: opened.append(1) or real(*args, **options),
  )
  indices = fill.frame_indices(60, 500, "hold")
  assert sum(1 for _ in fill.read(video, times, indices)) == 500
  assert len(opened) == 1


def test_reading_from_the_middle_gives_the_same_frames(video):
  frames = list(video_reader.read_frames(video))
  late = list(video_reader.read_frames(video, start=float(frames[37][0])))
  assert [time for time, _ in late] == [time for time, _ in frames[37:]]
  np.testing.assert_array_equal(late[0][1], frames[37][1])
