"""A known video is not tracked again."""

import os

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.face import fitting, masks, morphable
from pir_jax.media import video_reader
from pir_jax.preparation import seen, tracking
from pir_jax.types import InputError

NUM_FRAMES = 12


MODEL = morphable.load()


@pytest.fixture
def video(tmp_path, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", str(tmp_path / "seen"))
  path = tmp_path / "a 'video'.mp4"
  synthetic.write_video(path, num_frames=NUM_FRAMES)
  return path


@pytest.fixture
def tracked(monkeypatch):
  """Counts how often a video is looked through."""
  calls = []

  def track(path, *, video, identity, config, model, **options):
    calls.append(options)
    track = synthetic.synthetic_track(NUM_FRAMES, size=video.height)
    look = np.zeros(4, np.float32)
    look[0] = 1
    track = track._replace(identity=identity, look=look)
    fit = fitting.Fit(
      identity=identity,
      expression=track.expression,
      pose=np.asarray(track.pose, np.float64),
      focal=900.0,
      centre=np.float64([256, 256]),
      offset=np.ones((3, 3)),
      residual=np.ones(NUM_FRAMES),
      face_height=120.0,
    )
    return tracking.TrackedVideo(path, video, model, fit, track, 2, config)

  monkeypatch.setattr(tracking, "track", track)
  return calls


IDENTITY = np.float32([0.5, -0.25])


def _track(path, **options):
  usual = {
    "video": video_reader.probe(path),
    "identity": IDENTITY,
    "config": masks.Config(),
    "model": MODEL,
  }
  return seen.track(path, **usual | options)


def test_the_second_look_is_recalled_whole(video, tracked, capsys):
  first, second = _track(video), _track(video)
  assert len(tracked) == 1
  assert "is used again" in capsys.readouterr().out
  assert second.num_faces == 2 and second.sight is None
  for name in ("fit", "track"):
    pairs = zip(getattr(first, name), getattr(second, name), strict=True)
    for before, after in pairs:
      np.testing.assert_array_equal(before, after, strict=True)
      assert np.asarray(before).dtype == np.asarray(after).dtype


def test_another_name_is_the_same_video(video, tracked, tmp_path):
  _track(video)
  other = tmp_path / "b.mp4"
  os.link(video, other)
  assert _track(other).path == other
  assert len(tracked) == 1


@pytest.mark.parametrize(
  "options",
  [
    {"identity": IDENTITY + 1},
    {"config": masks.Config(face_margin=0.1)},
    {"face": 1},
  ],
)
def test_what_decides_is_in_the_name(video, tracked, options):
  _track(video)
  _track(video, **options)
  assert len(tracked) == 2


def test_of_a_long_video_only_what_is_needed_is_tracked(
  video, tracked, monkeypatch
):
  monkeypatch.setattr(seen, "_BLOCK", 0.1)
  for seconds in (0.11, 0.19, 0.21, 5.0, 0.05):
    _track(video, seconds=seconds)
  # In steps of the block; the whole, once it is known, is enough for all.
  asked = [options["seconds"] for options in tracked]
  assert asked == [pytest.approx(0.2), pytest.approx(0.3), None]


def test_another_content_is_another_video(video, tracked):
  _track(video)
  synthetic.write_video(video, num_frames=NUM_FRAMES + 1)
  _track(video)
  assert len(tracked) == 2


def test_a_picture_is_known_by_its_content(video, tracked, tmp_path):
  picture = tmp_path / "me.jpg"
  for content in (b"one", b"two"):
    picture.write_bytes(content)
    _track(video, face=str(picture))
  assert len(tracked) == 2


def test_somebody_forced_is_not_taken_for_who_is_expected(video, tracked):
  expected = np.float32([0, 1, 0, 0])
  _track(video, expected=expected, refuse=False)
  _track(video, expected=expected, refuse=False)
  assert len(tracked) == 1
  _track(video, expected=expected)
  assert len(tracked) == 2 and tracked[1]["refuse"]


def test_prepare_remembers_for_reenact(video, tracked):
  made = tracking.track(
    video,
    video=video_reader.probe(video),
    identity=IDENTITY,
    config=masks.Config(),
    model=MODEL,
  )
  seen.remember(made)
  _track(video, expected=made.track.look)
  assert len(tracked) == 1


@pytest.mark.parametrize("name", ["track.safetensors", "fit.safetensors"])
def test_what_is_damaged_is_tracked_again(video, tracked, name):
  _track(video)
  (place,) = seen.root().iterdir()
  (place / name).write_bytes(b"\x00" * 40)
  _track(video)
  assert len(tracked) == 2
  _track(video)
  assert len(tracked) == 2


@pytest.mark.parametrize("damaged", [False, True])
def test_windows_are_recalled_unless_they_are_damaged(video, tracked, damaged):
  place = seen.windows_place(_track(video), 64, 20)
  arrays = {f"{i}.cover": np.eye(20, k=i, dtype=bool) for i in (3, 0, 7)}
  assert seen.recall_windows(place) == {}
  seen.keep_windows(place, arrays)
  if damaged:
    (file,) = place.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
  recalled = seen.recall_windows(place)
  assert {*recalled} == (set() if damaged else {*arrays})
  for name, array in recalled.items():
    np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_windows_are_of_one_video_one_track_and_one_size(video, tracked):
  clip = _track(video)
  moved = clip._replace(track=clip.track._replace(pose=clip.track.pose + 1))
  other = clip._replace(video=clip.video._replace(sha256="0"))
  places = [seen.windows_place(clip, *sides) for sides in ((64, 20), (64, 24))]
  places += [seen.windows_place(x, 64, 20) for x in (moved, other)]
  assert len({*places}) == 4


def test_nothing_is_kept_where_nobody_wants_it(video, tracked, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", "")
  _track(video)
  _track(video)
  assert len(tracked) == 2
  seen.keep_windows(seen.windows_place(_track(video), 64, 20), {})
  assert seen.size() == (0, 0)
  seen.clear()


def test_by_default_tracks_lie_in_the_cache(monkeypatch, tmp_path):
  monkeypatch.delenv("PIR_JAX_KEEP")
  monkeypatch.setenv("PIR_JAX_CACHE", str(tmp_path))
  assert seen.root() == tmp_path / "kept/tracks"


def test_a_full_disk_is_no_error(video, tracked, monkeypatch):
  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(seen.track_lib, "save_track", full)
  _track(video)
  assert list(seen.root().iterdir()) == []


def test_an_error_leaves_nothing(video, monkeypatch):
  def refuse(*args, **options):
    raise InputError("no face.")

  monkeypatch.setattr(tracking, "track", refuse)
  with pytest.raises(InputError):
    _track(video)
  assert not seen.root().exists()


def test_what_was_used_longest_ago_goes(video, tracked, monkeypatch):
  for i in range(3):
    _track(video, identity=IDENTITY + i)
    for age, place in enumerate(seen.root().iterdir()):
      os.utime(place, (1000 * i + age, 1000 * i + age))
  count, size = seen.size()
  assert count == 3
  monkeypatch.setattr(seen.kept, "MAX_BYTES", size)
  _track(video, identity=IDENTITY + 3)
  assert seen.size()[0] == 3
  seen.clear()
  assert seen.size() == (0, 0)
