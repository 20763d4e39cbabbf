"""A video is in use while it is tracked."""

import contextlib
import threading
import time

import numpy as np
import pytest

from pir_jax import assets
from pir_jax.data import synthetic
from pir_jax.face import fitting, masks, morphable
from pir_jax.media import crops, video_reader
from pir_jax.preparation import growing, seen, tracking
from pir_jax.runtime import section_timer
from pir_jax.types import InputError

NUM_FRAMES = 60
SPREAD = 13  # Frames after half a second.
IDENTITY = np.float32([0.5, -0.25])
MODEL = morphable.load()


@pytest.fixture
def video(tmp_path, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", str(tmp_path / "kept"))
  path = tmp_path / "a 'video'.mp4"
  synthetic.write_video(path, num_frames=NUM_FRAMES)
  return path


def _tracked(path, num_frames):
  info = video_reader.probe(path)
  track = synthetic.synthetic_track(num_frames, size=info.height)
  look = np.eye(4, dtype=np.float32)[0]
  track = track._replace(identity=IDENTITY, look=look)
  fit = fitting.Fit(
    identity=IDENTITY,
    expression=track.expression,
    pose=np.asarray(track.pose, np.float64),
    focal=900.0,
    centre=np.float64([256, 256]),
    offset=np.ones((3, 3)),
    residual=np.ones(num_frames),
    face_height=120.0,
  )
  config = masks.Config()
  return tracking.TrackedVideo(path, info, MODEL, fit, track, 2, config)


def _steps(path, made, error=None):
  for num_frames in (20, 40, NUM_FRAMES, NUM_FRAMES):
    made.append(num_frames)
    yield growing.Step(_tracked(path, num_frames), {})
    if error is not None:
      raise error


def test_it_waits_for_what_is_asked_for_and_is_little_ahead(video):
  made = []
  grown = growing.Growing(_steps(video, made))
  assert len(grown.track.times) == 20 and not grown.whole
  assert grown.video.num_frames == NUM_FRAMES and grown.path == video
  assert len(grown.upto(19 - SPREAD).track.times) == 20
  time.sleep(0.3)
  assert made == [20, 40, 60]  # One waits, one is made.
  assert len(grown.upto(20 - SPREAD).track.times) == 40
  assert len(grown.upto(NUM_FRAMES - 1).track.times) == NUM_FRAMES
  assert grown.whole and grown.finish() is grown.upto(3)
  grown.close()


def test_how_much_is_needed_is_a_question_of_times(video):
  """A video of any rate: a mask joins what is near in time."""
  clip = _tracked(video, 40)
  slow = clip.track.times.copy()
  slow[20:] = slow[20] + 0.01 * np.arange(20)
  steps = [clip._replace(track=clip.track._replace(times=slow)), clip]
  grown = growing.Growing(growing.Step(x, {}) for x in steps)
  assert grown.upto(5) is steps[0]
  assert grown.upto(20) is steps[1]  # The last comes 0.2 s later.


@pytest.mark.parametrize("kept", [0, 25, NUM_FRAMES])
def test_frames_are_shown_once_and_decoded_once_where_they_are_kept(
  video, monkeypatch, kept
):
  images = [image for _, image in video_reader.read_frames(video)]
  read, decoded = video_reader.read_frames, []

  def counted(path):
    for item in read(path):
      decoded.append(item)
      yield item

  monkeypatch.setattr(video_reader, "read_frames", counted)
  last = 50  # No more is needed of this video.
  ends = [0, 20, 40, last, last]
  steps = (
    growing.Step(
      _tracked(video, stop),
      {i: images[i] for i in range(start, min(stop, kept))},
    )
    for start, stop in zip(ends[:-1], ends[1:], strict=True)
  )
  with contextlib.closing(growing.Growing(steps)) as grown:
    for place, (number, image) in enumerate(grown.frames()):
      assert number == place
      np.testing.assert_array_equal(image, images[number])
    assert number == last - 1 and grown.whole
  assert len(decoded) == (0 if kept > last else last + 1)


def test_it_can_be_closed_while_somebody_waits(video):
  over, begun = threading.Event(), threading.Event()

  def steps():
    yield growing.Step(_tracked(video, 20), {})
    begun.set()
    assert over.wait(10)
    raise growing._OverError

  grown = growing.Growing(steps(), over)
  ends = []

  def wait():
    try:
      grown.upto(30)
    except growing._OverError:
      ends.append("over")

  thread = threading.Thread(target=wait)
  thread.start()
  assert begun.wait(10)
  time.sleep(0.2)
  grown.close()
  thread.join(10)
  assert ends == ["over"]


def test_errors_are_raised_where_the_frames_are_needed(video):
  grown = growing.Growing(_steps(video, [], InputError("cut short.")))
  assert len(grown.upto(0).track.times) == 20
  with pytest.raises(InputError, match="cut short"):
    grown.upto(30)
  with pytest.raises(InputError, match="nobody"):
    growing.Growing(x for x in _nobody())


def _nobody():
  raise InputError("nobody.")
  yield


def test_closing_ends_it_between_two_frames(video, monkeypatch):
  """Whatever is left of an hour is not looked at."""
  seen_frames, reached = [], threading.Event()

  def sections(frames, **_):
    for frame in frames:
      seen_frames.append(frame)
      if len(seen_frames) == 3:
        reached.set()
      yield from ()
      time.sleep(0.02)

  monkeypatch.setattr(growing.landmarks, "sections", sections)
  over = threading.Event()
  info = video_reader.probe(video)
  steps = growing.sections(
    video,
    video=info,
    identity=IDENTITY,
    config=masks.Config(),
    model=MODEL,
    expected=np.zeros(4, np.float32),
    over=over,
  )
  thread = threading.Thread(
    target=lambda: pytest.raises(growing._OverError, next, steps)
  )
  thread.start()
  assert reached.wait(10)
  over.set()
  thread.join(10)
  assert not thread.is_alive() and len(seen_frames) < NUM_FRAMES


def _seen(path, **options):
  usual = {
    "video": video_reader.probe(path),
    "identity": IDENTITY,
    "config": masks.Config(),
    "model": MODEL,
    "expected": np.eye(4, dtype=np.float32)[0],
    "in_sections": True,
  }
  return seen.track(path, **usual | options)


@pytest.fixture
def asked(monkeypatch):
  """Counts how often a video is looked at in sections, and as a whole."""
  calls = []

  def sections(path, **options):
    calls.append("sections")
    return _steps(path, [])

  def track(path, **options):
    calls.append("whole")
    return _tracked(path, NUM_FRAMES)

  monkeypatch.setattr(growing, "sections", sections)
  monkeypatch.setattr(tracking, "track", track)
  return calls


def test_what_was_tracked_to_its_end_is_known(video, asked, capsys):
  grown = _seen(video)
  assert "is made on the way" in capsys.readouterr().out
  grown.close()
  grown = _seen(video)  # Its end was not reached.
  whole = grown.finish()
  grown.close()
  known = _seen(video)
  assert asked == ["sections", "sections"] and known.whole
  for before, after in zip(whole.track, known.track, strict=True):
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
  "options", [{"face": 1}, {"expected": None}, {"refuse": False}]
)
def test_whom_to_look_for_must_be_known(video, asked, options):
  assert isinstance(_seen(video, **options), tracking.TrackedVideo)
  assert asked == ["whole"]


@pytest.mark.parametrize(
  "fps", [5.0, 10.0, 23.976, 25.0, 30.0, 50.0, 60.0, 120.0]
)
def test_sections_with_margins_fill_a_program_of_the_fit(fps):
  length, margin = growing._lengths(fps)
  assert (length + 2 * margin) % fitting.PIECE_PADDING == 0
  # What masks join lies in a margin, and work begins within some seconds.
  assert margin > 0.5 * fps + 1
  assert length > 100 and length < max(8 * fps, 192)
  if fps == 25:  # The usual picture is kept.
    assert (length + 2 * margin) * 512 * 512 * 3 < growing._MAX_BYTES


@pytest.mark.slow
def test_sections_are_nearly_what_the_whole_is(monkeypatch):
  path = assets.fetch("demo_video")
  info = video_reader.probe(path)
  options = {"config": masks.Config(), "model": MODEL}
  whole = tracking.track(path, video=info, **options)
  options["identity"] = whole.track.identity
  whole = tracking.track(path, video=info, **options)
  monkeypatch.setattr(growing, "_lengths", lambda fps: (20, 14))
  phases = section_timer.SectionTimer()
  parts = list(
    growing.sections(
      path, video=info, expected=whole.track.look, phases=phases, **options
    )
  )
  last = parts[-1].tracked
  ends = [len(x.tracked.track.times) for x in parts]
  assert ends == [20, 40, 60, 80, 105, 105]
  shown = [frame for part in parts for frame in part.images]
  assert shown == [*range(105)] and 20 in parts[1].images
  for name in ("times", "present", "interpolated", "shot", "face_height"):
    np.testing.assert_array_equal(
      getattr(last.track, name), getattr(whole.track, name)
    )
  turn = last.fit.pose[:, :3, :3].swapaxes(1, 2) @ whole.fit.pose[:, :3, :3]
  cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
  assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1
  assert np.abs(last.fit.expression - whole.fit.expression).mean() < 0.02
  squares = [
    crops.inside(x.track.window, x.track.mask_window) for x in (last, whole)
  ]
  np.testing.assert_allclose(*squares, atol=0.05 * squares[1][0, 2])
  points = [x.landmarks(30) for x in (last, whole)]
  np.testing.assert_allclose(*points, atol=0.01)
