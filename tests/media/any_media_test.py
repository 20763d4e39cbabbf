"""Whatever people bring: every frame, and sound within 10 ms of the picture.

The picture grows brighter with time and is white in one frame; the sound clicks
at the time of that frame.
"""

import struct
from fractions import Fraction

import numpy as np
import pytest

from pir_jax.data import records, synthetic, timing
from pir_jax.media import video_reader
from pir_jax.types import FRAME_RATE, SAMPLE_RATE

DARK, SLOPE = 30, 80  # Grey levels at time 0, and levels a second.
SECONDS = 2.0
TOLERANCE = 0.010  # Seconds; a quarter of a frame.


def _click(length, at, rate, start):
  """Silence of `length` seconds from `start`, a click of 2 ms around `at`."""
  sound = np.zeros(round((length - start) * rate), np.float32)
  first = round((at - start) * rate)
  sound[first - rate // 1000 : first + rate // 1000] = 0.9
  return sound


def _write(path, *, rate="25", times=None, sound_rate=48000, start=0.0, **rest):
  """Writes the clip; returns the times of its frames and of the flash."""
  rate = Fraction(rate)
  if times is None:
    at = [i / rate for i in range(round(SECONDS * rate))]
  else:
    at = times
  flash = len(at) // 2

  def image(index, width, height):
    level = 255 if index == flash else DARK + SLOPE * float(at[index])
    return np.full((height, width, 3), round(level), np.uint8)

  synthetic.write_video(
    path,
    num_frames=len(at),
    frame_rate=rate,
    times=times,
    image=image,
    sound=_click(SECONDS, float(at[flash]), sound_rate, start),
    sound_rate=sound_rate,
    sound_start=start,
    **rest,
  )
  return at, flash


def _click_time(waveform):
  power = waveform.astype(np.float64) ** 2
  return np.sum(power * np.arange(len(power))) / power.sum() / SAMPLE_RATE


def _check(path, at, flash):
  """Frames, their times and brightness, the click, and both at the ticks."""
  frames = list(video_reader.read_frames(path))
  times = np.array([float(time) for time, _ in frames])
  levels = np.array([image.mean() for _, image in frames])
  # mkv and webm round to milliseconds.
  np.testing.assert_allclose(times, [float(t - at[0]) for t in at], atol=2e-3)
  assert np.argmax(levels) == flash
  waveform = video_reader.read_audio(path)
  assert abs(_click_time(waveform) - times[flash]) < TOLERANCE
  # The same after both have come to FRAME_RATE, as they are stored.
  levels[flash] = (levels[flash - 1] + levels[flash + 1]) / 2
  track = synthetic.synthetic_track(len(times))
  expression = np.zeros((len(times), 1), np.float32)
  expression[:, 0] = (levels - DARK) / SLOPE - float(at[0])
  track = track._replace(times=times, expression=expression)
  (clip,) = records.cut_clips(track, video_reader.fit_length(waveform, 10**5))
  ticks = (clip.start + np.arange(len(clip.expression))) / FRAME_RATE
  assert abs(len(ticks) - timing.duration(times) * FRAME_RATE) <= 1
  assert abs(np.median(clip.expression[:, 0] - ticks)) < TOLERANCE
  heard = clip.start / FRAME_RATE + _click_time(clip.waveform)
  assert abs(heard - times[flash]) < TOLERANCE


# Frames at odd moments, 4 to 71 ms apart, and a second without any.
_STEPS = np.random.default_rng(0).integers(360, 6400, 40)
_STEPS[15] = 90000
UNEVEN = [Fraction(int(t), 90000) for t in np.cumsum([0, *_STEPS])]
LATE = [Fraction(1, 2) + Fraction(i, 25) for i in range(30)]
PCM, AAC = ("libx264", "pcm_s16le"), ("libx264", "aac")

CLIPS = {
  "23.976.mp4": {"rate": "24000/1001"},
  "25.mp4": {},
  "29.97.mp4": {"rate": "30000/1001"},
  "30.mp4": {"rate": "30"},
  "50.mp4": {"rate": "50"},
  "60.mp4": {"rate": "60"},
  "59.94.mkv": {"rate": "60000/1001"},
  "12.mov": {"rate": "12"},
  "uneven.mp4": {"times": UNEVEN},
  "uneven.mkv": {"times": UNEVEN},
  "uneven.webm": {"times": UNEVEN},
  "uneven.ts": {"times": UNEVEN},
  "picture late.mp4": {"times": LATE},
  "picture late.mkv": {"times": LATE},
  "picture late.ts": {"times": LATE},
  "44100.mp4": {"sound_rate": 44100},
  "8000.mp4": {"sound_rate": 8000},
  "192000.mkv": {"sound_rate": 192000},
  "mono.mp4": {"layout": "mono"},
  "5.1.mp4": {"layout": "5.1"},
  "7.1.mkv": {"layout": "7.1"},
  "late.mp4": {"start": 0.3},
  "late.mkv": {"start": 0.3},
  "late.webm": {"start": 0.3},
  "late.ts": {"start": 0.3},
  "early.mp4": {"start": -0.3},
  "early.mkv": {"start": -0.3},
  "odd.mkv": {"size": (63, 47), "codecs": ("ffv1", "flac")},
  "odd.webm": {"size": (63, 47)},
  "b-frames.mp4": {"options": {"bf": "3", "preset": "medium"}},
  "b-frames.avi": {"options": {"bf": "3", "preset": "medium"}},
  "mpeg4.avi": {"codecs": ("mpeg4", "pcm_s16le")},
  "mjpeg.avi": {"codecs": ("mjpeg", "pcm_s16le"), "pixels": "yuvj420p"},
  "b-frames.ts": {"options": {"bf": "3", "preset": "medium"}},
  "mpeg2.mpg": {"codecs": ("mpeg2video", "mp2")},
  "flash.flv": {"codecs": AAC},
  "phone.3gp": {"codecs": AAC},
  "mp3.mkv": {"codecs": ("libx264", "libmp3lame")},
  "mp3.mp4": {"codecs": ("libx264", "libmp3lame")},
  "aac.mkv": {"codecs": AAC},
  "ac3.mkv": {"codecs": ("libx264", "ac3")},
  "alac.mov": {"codecs": ("libx264", "alac")},
  "av1.webm": {"codecs": ("libsvtav1", "libopus")},
  "hevc.mp4": {"codecs": ("libx265", "aac"), "pixels": "yuv420p10le"},
  "444.mp4": {"pixels": "yuv444p"},
  "422.mp4": {"pixels": "yuv422p10le"},
  "prores.mov": {
    "codecs": ("prores_ks", "pcm_s24le"),
    "pixels": "yuv422p10le",
  },
  "pieces.mp4": {"container_options": {"movflags": "frag_keyframe+delay_moov"}},
  "live.webm": {"container_options": {"live": "1"}},
}


@pytest.mark.parametrize("name", CLIPS)
def test_picture_and_sound_agree_in_any_file(tmp_path, name):
  path = tmp_path / name
  at, flash = _write(path, **CLIPS[name])
  _check(path, at, flash)
  info = video_reader.probe(path)
  assert (info.width, info.height) == CLIPS[name].get("size", (64, 48))
  if "times" not in CLIPS[name]:
    assert info.rate == Fraction(CLIPS[name].get("rate", "25"))
    assert abs(info.duration - len(at) / info.rate) < 0.001
  else:
    mean = (len(at) - 1) / (at[-1] - at[0])
    assert abs(info.rate / mean - 1) < 0.05  # The last frame's length is free.


def test_a_moving_picture_without_sound(tmp_path):
  path = tmp_path / "a.gif"
  times = [Fraction(i * i, 100) for i in range(12)]  # Its clock has 1/100 s.
  synthetic.write_video(
    path, num_frames=12, times=times, codecs=("gif", ""), pixels="rgb8"
  )
  assert not video_reader.probe(path).has_audio
  frames = list(video_reader.read_frames(path))
  assert [time for time, _ in frames] == times
  assert {image.shape for _, image in frames} == {(48, 64, 3)}


def test_an_edit_list_is_obeyed(tmp_path):
  """As phones trim: all is in the file, and a list says what is shown."""
  path = tmp_path / "trimmed.mov"
  at, flash = _write(path, options={"bf": "3", "preset": "medium"})
  data = bytearray(path.read_bytes())
  place = -1
  # ISO/IEC 14496-12, 8.6.6: duration in ms, start on the track's own clock.
  while (place := data.find(b"elst", place + 1)) >= 0:
    duration, start, speed = struct.unpack_from(">IiI", data, place + 12)
    header = data.index(b"mdhd", place)
    (clock,) = struct.unpack_from(">I", data, header + 16)
    start += clock * 52 // 100
    struct.pack_into(">IiI", data, place + 12, duration - 800, start, speed)
  path.write_bytes(data)
  _check(path, at[13:43], flash - 13)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts", "a.avi"])
def test_a_late_start_gives_the_frames_of_the_whole(tmp_path, name):
  path = tmp_path / name
  codecs = ("mpeg4", "pcm_s16le") if name == "a.avi" else None
  synthetic.write_video(path, num_frames=60, codecs=codecs)
  whole = list(video_reader.read_frames(path))
  for index in (1, 31, 58):
    time, image = next(
      video_reader.read_frames(path, start=float(whole[index][0]))
    )
    assert time == whole[index][0]
    np.testing.assert_array_equal(image, whole[index][1])
