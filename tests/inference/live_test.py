"""Live speech: every frame once, whatever the chunks; nothing piles up."""

import io
import itertools
import threading
import time
import types
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.inference import live, reenactor
from pir_jax.media import fill, video_reader
from pir_jax.stages import speech_stream
from pir_jax.types import SAMPLE_RATE, InputError
from tests.inference.reenactor_test import (
  NUM_FRAMES,
  GreyPerson,
  clip,  # noqa: F401 (a fixture)
  source_of,
)

HOP = SAMPLE_RATE // 25


class Speaker(GreyPerson):
  """Speaks by loudness: its expression is the mean of a tick's samples."""

  def __init__(self, size):
    super().__init__()
    self.size = size

  @property
  def expression_names(self):
    return ("jawOpen",) * self.size

  def in_batches_of(self, size):
    return self

  def begin_speech(self, look_ahead, step):
    def encode(sound, length):
      return sound.reshape(1, -1, HOP).mean(-1, keepdims=True)

    def extend(carry, features):
      return carry, np.repeat(features, self.size, -1)

    return speech_stream.SpeechStream(
      encode,
      extend,
      None,
      window=100,
      look_ahead=look_ahead,
      step=step,
      hop=HOP,
    )


@pytest.fixture
def source(clip):  # noqa: F811
  size = clip.track.expression.shape[1]
  made = source_of(clip, Speaker(size))
  made.known.masks = types.SimpleNamespace(region="lower")
  return made


def _sound(seconds, sample_rate=SAMPLE_RATE):
  times = np.arange(round(seconds * sample_rate)) / sample_rate
  return (0.3 * np.sin(2 * np.pi * 3 * times)).astype(np.float32)


def _chunks(sound, size):
  return [sound[i : i + size] for i in range(0, len(sound), size)]


@pytest.mark.parametrize("size", [100, 640, 5000, 10**6])
def test_every_frame_comes_once_with_its_own_sound(source, size):
  sound = _sound(2.03)
  moments = list(live.moments(source, _chunks(sound, size)))
  assert len(moments) == 51  # 50.75 frames.
  times = [moment.time for moment in moments]
  np.testing.assert_allclose(times, np.arange(51) / 25)
  heard = np.concatenate([moment.sound for moment in moments])
  np.testing.assert_allclose(heard, sound, atol=1e-6)


def test_frames_are_those_of_the_video_in_order(source):
  moments = live.moments(source, _chunks(_sound(2), 999))
  absent = ~source.tracked.track.present
  frames = fill.read_endless(
    source.tracked.path, source.tracked.track.times, "bounce"
  )
  pairs = list(zip(moments, frames, strict=False))
  assert len(pairs) == 50
  for moment, (number, image) in pairs:
    if absent[number]:
      np.testing.assert_array_equal(moment.frame, image)
    else:  # Outside the window nothing changes.
      np.testing.assert_array_equal(moment.frame[:3], image[:3])
      assert (moment.frame != image).any()


def test_chunks_decide_nothing(source):
  few, many = (
    [m.frame for m in live.moments(source, _chunks(_sound(1), size))]
    for size in (320, 1280)
  )
  np.testing.assert_array_equal(few, many)


@pytest.mark.parametrize(
  ("rate", "channels", "kind"),
  [(48_000, 2, "float32"), (8000, 1, "int16"), (44_100, 1, "float64")],
)
def test_any_rate_channels_and_kind(source, rate, channels, kind):
  sound = _sound(1.0, rate)
  given = np.repeat(sound[:, None], channels, 1)
  if kind == "int16":
    given = np.round(given * 32767)
  moments = list(
    live.moments(
      source, _chunks(given.astype(kind), rate // 50), sample_rate=rate
    )
  )
  assert len(moments) == 25
  heard = np.concatenate([moment.sound for moment in moments])
  np.testing.assert_allclose(heard, sound, atol=1e-4)


def test_other_frame_rates_keep_time(source):
  video = source.tracked.video._replace(rate=Fraction(30000, 1001))
  source = source._replace(tracked=source.tracked._replace(video=video))
  sound = _sound(3)
  moments = list(live.moments(source, _chunks(sound, 640)))
  assert len(moments) == 90
  assert moments[-1].time == pytest.approx(89 * 1001 / 30000)
  assert sum(len(m.sound) for m in moments) == pytest.approx(48_000, abs=550)


def test_cut_ends_with_the_video_and_hold_does_not(source):
  for way, count in (("cut", NUM_FRAMES), ("hold", 50), ("loop", 50)):
    made = live.moments(source, _chunks(_sound(2), 640), way=way)
    assert sum(1 for _ in made) == count


def test_nothing_is_asked_for_before_it_is_needed(source):
  """A slow reader holds up the sender, and memory does not grow."""
  sent = 0

  def endless():
    nonlocal sent
    for chunk in itertools.cycle(_chunks(_sound(1), 640)):
      sent += 1
      yield chunk

  moments = live.moments(source, endless())
  for _ in range(10):
    next(moments)
  time.sleep(0.5)
  first = sent
  time.sleep(0.5)
  assert sent == first < 60
  before = threading.active_count()
  moments.close()
  time.sleep(0.3)
  assert threading.active_count() < before


def test_late_sound_is_replaced_by_silence_and_the_video_goes_on(source):
  def late():
    yield _sound(0.4)
    time.sleep(1.0)
    yield _sound(0.4)

  moments = list(live.moments(source, late(), patience=0.1))
  heard = np.concatenate([moment.sound for moment in moments])
  seconds = len(heard) / SAMPLE_RATE
  # 0.8 s of sound, and what was missing of the second's wait.
  assert 1.1 < seconds < 1.8
  assert len(moments) == pytest.approx(25 * seconds, abs=1)
  gap = heard[round(0.4 * SAMPLE_RATE) :][: round(0.3 * SAMPLE_RATE)]
  assert not gap.any()


def test_a_patient_reader_waits(source):
  def late():
    yield _sound(0.4)
    time.sleep(0.6)
    yield _sound(0.4)

  moments = list(live.moments(source, late()))
  assert len(moments) == 20


def test_closing_does_not_wait_for_a_sender_that_never_sends(source):
  never = threading.Event()

  def silent():
    yield _sound(1.0)
    never.wait(20)

  moments = live.moments(source, silent())
  next(moments)
  begin = time.monotonic()
  moments.close()
  assert time.monotonic() - begin < 2
  never.set()


def test_an_error_of_the_sender_is_raised(source):
  def broken():
    yield _sound(0.5)
    raise ConnectionError("gone")

  with pytest.raises(ConnectionError, match="gone"):
    list(live.moments(source, broken()))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"sample_rate": 100}, "sample_rate=100 must lie in 8000 to"),
    ({"look_ahead": -0.1}, "look_ahead=-0.1 must lie in 0 to 1"),
    ({"patience": -1.0}, "patience=-1.0 must lie above 0"),
    ({"way": "back"}, "fill=back must be one of"),
    ({"blinks": "none"}, "--mask_region=face"),
  ],
)
def test_what_cannot_be_is_refused_at_once(source, options, message):
  with pytest.raises(InputError, match=message):
    live.moments(source, [], **options)


@pytest.mark.parametrize(
  "chunk", [np.zeros((2, 2, 2)), np.array(["a"]), np.full(9, np.nan)]
)
def test_what_is_no_sound_is_refused(source, chunk):
  with pytest.raises(InputError, match="sound"):
    list(live.moments(source, [chunk]))


def test_no_sound_is_no_frame(source):
  assert list(live.moments(source, [])) == []


class Pipe(io.RawIOBase):
  """Takes some bytes, then is gone."""

  def __init__(self, most=10**9):
    self.left = most
    self.data = bytearray()

  def writable(self):
    return True

  def write(self, data):
    if len(self.data) + len(data) > self.left:
      raise BrokenPipeError(32, "Broken pipe")
    self.data += bytes(data)
    return len(data)


@pytest.fixture
def colored(source):
  video = source.tracked.video
  look = types.SimpleNamespace(
    **vars(source.known), resembles=lambda look: None
  )
  assert video.colors
  return source._replace(known=look)


def test_a_stream_is_a_video_with_sound(colored):
  pipe = Pipe()
  count = live.write(colored, _chunks(_sound(2), 640), pipe)
  assert count == 50
  with av.open(io.BytesIO(bytes(pipe.data))) as container:
    assert sum(1 for _ in container.decode(video=0)) == 50
    assert "AI-generated" in container.metadata["comment"]
    assert len(container.streams.audio) == 1


@pytest.mark.parametrize("way", ["cut", "hold"])
def test_where_the_video_ends_the_stream_that_is_told(colored, capsys, way):
  count = live.write(
    colored, _chunks(_sound(4), 640), Pipe(), kind="raw", way=way
  )
  ended = "The video has ended" in capsys.readouterr().out
  assert ended == (way == "cut")
  assert (count == len(colored.tracked.track.times)) == (way == "cut")
  assert "speech" in colored.person.phases.spans


def test_a_reader_that_leaves_ends_it_in_a_sentence(colored):
  with pytest.raises(InputError, match="whoever reads the video closed it"):
    live.write(colored, _chunks(_sound(4), 640), Pipe(most=20_000), kind="raw")


def test_a_pipe_without_sound_is_an_error(colored):
  with pytest.raises(InputError, match="no sound came"):
    live.write(colored, [], Pipe(), kind="raw")


def test_long_speech_is_read_on_the_way(colored, tmp_path, capsys):
  speech = tmp_path / "speech.wav"
  soundfile.write(speech, _sound(3), SAMPLE_RATE)
  sheet = reenactor._Sheet()
  done = reenactor.write_long(
    colored, _sound(1), speech, tmp_path / "out.mp4", sheet=sheet
  )
  assert done.num_frames == 75 and done.num_unchanged
  info = video_reader.probe(tmp_path / "out.mp4")
  assert info.has_audio and info.num_frames == 75
  sheet.save(tmp_path / "sheet.png")
  assert "is read on the way" in capsys.readouterr().out
