"""Writing videos: whole or not at all, ends that agree, true colours."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic
from pir_jax.media import audio, video_reader, video_writer
from pir_jax.types import SAMPLE_RATE, InputError


def _frames(count, width=64, height=48):
  return [synthetic.moving_disc(i, width, height) for i in range(count)]


def _write(path, frames, rate=Fraction(25), **options):
  size = frames[0].shape[1], frames[0].shape[0]
  with video_writer.VideoWriter(path, size, rate, **options) as video:
    for frame in frames:
      video.write(frame)


@pytest.mark.parametrize("rate", ["24000/1001", "30", "50", "12"])
@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_sound_and_picture_end_within_one_frame(tmp_path, rate, seconds):
  rate = Fraction(rate)
  wav, path = tmp_path / "a.wav", tmp_path / "o.mp4"
  soundfile.write(wav, synthetic.speech_like(seconds, 22050), 22050)
  count = round(2 * rate)
  _write(path, _frames(count), rate, audio=wav)
  frames = list(video_reader.read_frames(path))
  assert len(frames) == count
  picture = frames[-1][0] + 1 / rate
  with av.open(str(path)) as container:
    stream = container.streams.audio[0]
    assert stream.rate == 22050
    assert abs(stream.duration * stream.time_base - picture) < 1 / rate
    assert container.metadata["comment"] == video_writer.COMMENT
  samples = sum(len(block) for _, block in audio.read_sound(path))
  assert abs(Fraction(samples, 22050) - picture) < 1 / rate


def test_sound_is_where_it_was(tmp_path):
  wav, path = tmp_path / "a.wav", tmp_path / "o.mp4"
  sound = synthetic.speech_like(2.0, 16000)
  soundfile.write(wav, sound, 16000)
  _write(path, _frames(50), audio=wav)
  got = video_reader.read_audio(path)[:32000]
  lags = range(-400, 401, 20)
  inner = slice(1000, 30000)
  match = [np.dot(np.roll(got, lag)[inner], sound[inner]) for lag in lags]
  # 20 samples, 1.3 ms, is the step of the search.
  assert abs(lags[int(np.argmax(match))]) <= 20


@pytest.mark.parametrize(
  "options",
  [
    {"sound_start": 0.3},
    {"sound_start": -0.2},
    {"sound_rate": 8000},
    {"sound_rate": 192000},
    {"layout": "5.1"},
    {"layout": "7.1"},
    {"frame_rate": Fraction(24000, 1001)},
  ],
)
def test_any_videos_sound_stays_where_it_was(tmp_path, options):
  source, path = tmp_path / "source.mkv", tmp_path / "o.mp4"
  rate = options.get("sound_rate", 48000)
  click = np.zeros(2 * rate, np.float32)
  click[rate : rate + rate // 500] = 0.9
  options = {"sound_rate": rate} | options
  synthetic.write_video(source, num_frames=50, sound=click, **options)
  _write(path, _frames(60), Fraction(30), audio=source)

  def click_time(video):
    power = video_reader.read_audio(video).astype(np.float64) ** 2
    return (power * np.arange(len(power))).sum() / power.sum() / SAMPLE_RATE

  want = 1.001 + options.get("sound_start", 0.0)
  assert abs(click_time(source) - want) < 0.002  # mkv rounds to milliseconds
  assert (
    abs(click_time(path) - want) < 0.005
  )  # 44 ms if AAC's start were forgotten


def test_a_mean_rate_of_an_uneven_video_is_kept(tmp_path):
  path = tmp_path / "o.mp4"
  _write(path, _frames(30), Fraction(23345, 921))
  info = video_reader.probe(path)
  assert info.rate == Fraction(23345, 921)
  times = [time for time, _ in video_reader.read_frames(path)]
  assert max(abs(t - i / info.rate) for i, t in enumerate(times)) < 1e-4


def test_a_rate_that_aac_has_not_is_resampled(tmp_path):
  wav, path = tmp_path / "a.wav", tmp_path / "o.mp4"
  soundfile.write(wav, synthetic.speech_like(1.0, 37800), 37800)
  _write(path, _frames(25), audio=wav)
  assert video_reader.probe(path).sound_rate == 48000


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48)])
def test_odd_sides_grow_by_one_pixel(tmp_path, size):
  path = tmp_path / "o.mp4"
  _write(path, _frames(3, *size))
  info = video_reader.probe(path)
  assert (info.width, info.height) == (64, 48)


def test_colours_come_back(tmp_path):
  path = tmp_path / "o.mp4"
  colours = [(200, 50, 20), (20, 180, 60), (30, 40, 220), (128, 128, 128)]
  frame = np.zeros((64, 64, 3), np.uint8)
  for i, colour in enumerate(colours):
    frame[:, 16 * i : 16 * i + 16] = colour
  _write(path, [frame] * 3)
  _, got = next(video_reader.read_frames(path))
  for i, colour in enumerate(colours):
    block = got[8:56, 16 * i + 5 : 16 * i + 11].reshape(-1, 3)
    # Two 8-bit roundings through YUV and crf 16; a wrong matrix is off by 20.
    assert np.abs(block.mean(0) - colour).max() < 4


@pytest.mark.parametrize("name", ["a b's.mp4", 'x";y.mp4', "é映.v1.2.mp4"])
def test_any_file_name_works(tmp_path, name):
  _write(tmp_path / name, _frames(2))
  assert [p.name for p in tmp_path.iterdir()] == [name]


def test_nothing_stays_when_the_body_raises(tmp_path):
  path = tmp_path / "o.mp4"
  path.write_bytes(b"the old one")
  with pytest.raises(RuntimeError, match="boom"):
    with video_writer.VideoWriter(path, (64, 48), Fraction(25)) as video:
      video.write(_frames(1)[0])
      raise RuntimeError("boom")
  assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]
  assert path.read_bytes() == b"the old one"


def test_a_finished_file_is_handed_on_before_it_gets_its_name(tmp_path):
  path = tmp_path / "o.mp4"

  def finish(hidden):
    assert not path.exists()
    assert video_reader.probe(hidden).num_frames == 2
    raise RuntimeError("not finished")

  with pytest.raises(RuntimeError, match="not finished"):
    _write(path, _frames(2), finish=finish)
  assert not list(tmp_path.iterdir())


def test_refusals_leave_nothing(tmp_path):
  path = tmp_path / "o.mp4"
  with pytest.raises(InputError, match="no frame"):
    with video_writer.VideoWriter(path, (64, 48), Fraction(25)):
      pass
  with pytest.raises(InputError, match="does not exist"):
    _write(path, _frames(1), audio=tmp_path / "no.wav")
  with pytest.raises(InputError, match=".mp4"):
    video_writer.VideoWriter(tmp_path / "o.avi", (64, 48), Fraction(25))
  with pytest.raises(ValueError, match="resize"):
    with video_writer.VideoWriter(path, (32, 48), Fraction(25)) as video:
      video.write(_frames(1)[0])
  assert not list(tmp_path.iterdir())


def test_colours_are_tagged_as_they_were_read(tmp_path):
  path = tmp_path / "o.mp4"
  _write(path, _frames(2), colors=(5, 6))
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc) == (5, 6)
    assert frame.colorspace == 1
  assert video_reader.probe(path).colors == (5, 6)
