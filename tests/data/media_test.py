"""Reading files: counts, times, alignment of sound, and refusals."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.data import media, synthetic
from pir_jax.types import SAMPLE_RATE, InputError

RATES = ["24000/1001", "25", "30000/1001", "30", "50", "60", "12"]
NAMES = [
  "a b.mp4",
  'it\'s "quoted".mp4',
  "a;rm -rf b.mp4",
  "película 映画.mp4",
  "v1.2.final.mp4",
  "http:b.mp4",
  "-i %03d.mp4",
]


def _click(seconds, at, rate):
  sound = np.zeros(round(seconds * rate), np.float32)
  start = round(at * rate)
  sound[start : start + rate // 500] = 0.9
  return sound


def _click_time(waveform):
  """Centre of a 2 ms click."""
  power = waveform.astype(np.float64) ** 2
  return np.sum(power * np.arange(len(power))) / power.sum() / SAMPLE_RATE


@pytest.mark.parametrize("rate", RATES)
def test_every_frame_comes_once_in_order_at_its_time(tmp_path, rate):
  rate = Fraction(rate)
  path = tmp_path / "video.mp4"
  synthetic.write_video(path, num_frames=30, rate=rate)
  info = media.probe(path)
  assert (info.width, info.height, info.num_frames) == (64, 48, 30)
  assert info.rate == rate
  assert not info.has_audio
  frames = list(media.read_frames(path))
  assert len(frames) == 30
  for index, (time, image) in enumerate(frames):
    # The container's clock has at least 10000 ticks a second.
    assert abs(time - index / rate) < Fraction(1, 5000)
    assert synthetic.frame_code(image) == index % 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("start", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_click_stays_where_it_was(tmp_path, suffix, start, rate):
  path = tmp_path / f"video{suffix}"
  synthetic.write_video(
    path,
    num_frames=50,
    sound=_click(1.5, 0.8, rate),
    sound_rate=rate,
    sound_start=start,
  )
  waveform = media.read_audio(path)
  # 10 ms is a quarter of a frame; the click itself lasts 2 ms.
  assert abs(_click_time(waveform) - (start + 0.801)) < 0.010


def test_pcm_at_16_khz_is_read_as_it_is(tmp_path):
  path = tmp_path / "sound.wav"
  sound = synthetic.speech_like(1.0, SAMPLE_RATE)
  soundfile.write(path, sound, SAMPLE_RATE, subtype="FLOAT")
  np.testing.assert_array_equal(media.read_audio(path), sound)


def test_channels_are_averaged_and_the_rate_changed(tmp_path):
  path = tmp_path / "stereo.wav"
  time = np.arange(48000) / 48000
  tone = np.sin(2 * np.pi * 300 * time).astype(np.float32)
  soundfile.write(path, np.stack([tone, 0 * tone], 1), 48000, subtype="FLOAT")
  got = media.read_audio(path)
  assert abs(len(got) - 16000) <= 1
  want = 0.5 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
  # The filter of the resampler rings at both ends; -60 dB inside.
  np.testing.assert_allclose(got[500:15500], want[500:15500], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works(tmp_path, name):
  path = tmp_path / name
  synthetic.write_video(path, num_frames=3, sound=_click(0.1, 0.05, 16000))
  assert len(list(media.read_frames(path))) == 3
  assert media.probe(str(path)).name == name
  assert len(media.read_audio(path)) > 0


@pytest.mark.parametrize(
  ("turn", "matrix"), [(3, (0, 1, -1, 0)), (2, (-1, 0, 0, -1))]
)
def test_a_rotated_recording_is_read_upright(tmp_path, turn, matrix):
  path = tmp_path / "phone.mp4"
  synthetic.write_video(path, num_frames=2)
  plain = next(media.read_frames(path))[1]
  data = bytearray(path.read_bytes())
  # ISO/IEC 14496-12, 8.3.2: the matrix a b u c d v x y w of the track header.
  at = data.index(b"tkhd") + 4 + 40
  a, b, c, d = (value << 16 for value in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
  got = next(media.read_frames(path))[1]
  # numpy turns anticlockwise; (0, 1, -1, 0) asks for 90 degrees clockwise.
  np.testing.assert_array_equal(got, np.rot90(plain, turn))
  info = media.probe(path)
  assert (info.height, info.width) == got.shape[:2]


def _all(path):
  media.probe(path)
  list(media.read_frames(path))


@pytest.mark.parametrize(
  ("content", "sentence"),
  [
    (None, "does not exist"),
    (b"", "empty file"),
    (b"not a video at all" * 100, "cannot be read"),
  ],
)
def test_what_is_no_video_is_refused(tmp_path, content, sentence):
  path = tmp_path / "bad.mp4"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=sentence):
    _all(path)
  with pytest.raises(InputError, match=sentence):
    media.read_audio(path)


def test_a_folder_is_refused(tmp_path):
  with pytest.raises(InputError, match="is a folder"):
    media.probe(tmp_path)


@pytest.mark.parametrize("index_first", [False, True])
def test_a_video_cut_short_is_refused(tmp_path, index_first):
  whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
  synthetic.write_video(whole, num_frames=100, size=(160, 120))
  if index_first:
    moved = tmp_path / "moved.mp4"
    with (
      av.open(str(whole)) as old,
      av.open(str(moved), "w", options={"movflags": "faststart"}) as new,
    ):
      stream = new.add_stream_from_template(old.streams.video[0])
      for packet in old.demux(video=0):
        if packet.dts is not None:
          packet.stream = stream
          new.mux(packet)
    whole = moved
  data = whole.read_bytes()
  cut.write_bytes(data[: len(data) // 2])
  with pytest.raises(InputError, match="cut short|damaged"):
    _all(cut)


def test_sound_without_picture_is_no_video_and_the_reverse(tmp_path):
  wav, video = tmp_path / "a.wav", tmp_path / "v.mp4"
  soundfile.write(wav, synthetic.speech_like(0.2, 16000), 16000)
  synthetic.write_video(video, num_frames=3)
  with pytest.raises(InputError, match="no picture"):
    media.probe(wav)
  with pytest.raises(InputError, match="no sound"):
    media.read_audio(video)


def test_what_cannot_drive_a_face_is_refused(tmp_path):
  with pytest.raises(InputError, match="empty"):
    media.check_speech(np.zeros(0, np.float32))
  with pytest.raises(InputError, match="silent"):
    media.check_speech(np.full(16000, 1e-5, np.float32))
  with pytest.raises(InputError, match="not numbers"):
    media.check_speech(np.array([0.1, np.nan], np.float32))
  media.check_speech(synthetic.speech_like(0.5, 16000))
  path = tmp_path / "nan.wav"
  sound = np.array([0.1, np.nan] * 800, np.float32)
  soundfile.write(path, sound, 16000, subtype="FLOAT")
  with pytest.raises(InputError, match="not numbers"):
    media.read_audio(path)


def test_an_empty_wav_is_refused(tmp_path):
  path = tmp_path / "empty.wav"
  soundfile.write(path, np.zeros(0, np.float32), 16000)
  with pytest.raises(InputError, match="empty sound|cannot be read"):
    media.read_audio(path)


def test_fit_length_cuts_and_pads():
  wave = np.arange(5, dtype=np.float32)
  np.testing.assert_array_equal(media.fit_length(wave, 3), [0, 1, 2])
  np.testing.assert_array_equal(
    media.fit_length(wave, 7), [0, 1, 2, 3, 4, 0, 0]
  )
