"""Reading files: counts, times, alignment of sound, and refusals."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic
from pir_jax.media import speech_waveform, video_reader
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
  synthetic.write_video(path, num_frames=30, frame_rate=rate)
  info = video_reader.probe(path)
  assert (info.width, info.height, info.num_frames) == (64, 48, 30)
  assert info.rate == rate
  assert not info.has_audio
  frames = list(video_reader.read_frames(path))
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
  waveform = video_reader.read_audio(path)
  # 10 ms is a quarter of a frame; the click itself lasts 2 ms.
  assert abs(_click_time(waveform) - (start + 0.801)) < 0.010


def test_pcm_at_16_khz_is_read_as_it_is(tmp_path):
  path = tmp_path / "sound.wav"
  sound = synthetic.speech_like(1.0, SAMPLE_RATE)
  soundfile.write(path, sound, SAMPLE_RATE, subtype="FLOAT")
  np.testing.assert_array_equal(video_reader.read_audio(path), sound)


def test_channels_are_averaged_and_the_rate_changed(tmp_path):
  path = tmp_path / "stereo.wav"
  time = np.arange(48000) / 48000
  tone = np.sin(2 * np.pi * 300 * time).astype(np.float32)
  soundfile.write(path, np.stack([tone, 0 * tone], 1), 48000, subtype="FLOAT")
  got = video_reader.read_audio(path)
  assert abs(len(got) - 16000) <= 1
  want = 0.5 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
  # The filter of the resampler rings at both ends; -60 dB inside.
  np.testing.assert_allclose(got[500:15500], want[500:15500], atol=1e-3)


def _tone(seconds, rate, hertz=440):
  time = np.arange(round(seconds * rate)) / rate
  return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.mark.parametrize("kind", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_wav_keeps_its_length_pitch_and_loudness(
  tmp_path, rate, channels, kind
):
  path = tmp_path / "sound.wav"
  sound = np.stack([_tone(2.0, rate)] * channels, 1)
  soundfile.write(path, sound, rate, subtype=kind)
  got = video_reader.read_audio(path)
  assert got.dtype == np.float32
  assert abs(len(got) - 2 * SAMPLE_RATE) <= 2
  want = _tone(2.0, SAMPLE_RATE)
  # 8 bits are 256 steps, rounded down or up by whoever writes them; the
  # resampler's filter rings at both ends.
  step = 2 * 2 / 256 if kind == "PCM_U8" else 1e-3
  np.testing.assert_allclose(got[500:31500], want[500:31500], atol=step)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("a.mp3", {}),
    ("a.flac", {}),
    ("a.ogg", {}),
    ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
  ],
)
def test_packed_sound_keeps_its_length_and_pitch(tmp_path, name, options):
  path = tmp_path / name
  sound = np.stack([_tone(2.0, 48000)] * 2, 1)
  soundfile.write(path, sound, 48000, **options)
  got = video_reader.read_audio(path)
  assert abs(len(got) - 2 * SAMPLE_RATE) <= 2
  spectrum = np.abs(np.fft.rfft(got))
  assert np.argmax(spectrum) / 2.0 == pytest.approx(440, abs=0.5)


@pytest.mark.parametrize(
  ("name", "codec", "sample_rate"),
  [
    ("alaw.wav", "pcm_alaw", 8000),
    ("g722.wav", "g722", 16000),
    ("adpcm.wav", "adpcm_ima_wav", 22050),
    ("voice.amr", "libopencore_amrnb", 8000),
    ("a.webm", "libopus", 48000),
    ("a.aiff", "pcm_s16be", 44100),
    ("a.caf", "alac", 44100),
    ("a.ac3", "ac3", 48000),
  ],
)
def test_sound_of_telephones_and_studios_is_read(
  tmp_path, name, codec, sample_rate
):
  path = tmp_path / name
  with av.open(path, "w") as file:
    stream = file.add_stream(codec, rate=sample_rate)
    stream.layout = "mono"
    kind = stream.codec_context.format.name
    frame = av.AudioFrame.from_ndarray(
      _tone(2.0, sample_rate)[None], "flt", "mono"
    )
    frame.sample_rate = sample_rate
    convert = av.AudioResampler(kind, "mono", sample_rate)
    for part in (*convert.resample(frame), None):
      file.mux(stream.encode(part))
  got = video_reader.read_audio(path)
  # Coders of speech work in blocks, and add what they look back to.
  assert abs(len(got) / SAMPLE_RATE - 2) < 0.1
  spectrum = np.abs(np.fft.rfft(got))
  assert np.argmax(spectrum) / (len(got) / SAMPLE_RATE) == pytest.approx(
    440, abs=1
  )


def test_what_would_be_read_as_noise_is_refused(tmp_path):
  path = tmp_path / "big 'endian'.wav"
  soundfile.write(path, _tone(0.5, 16000), 16000, format="WAV", endian="BIG")
  with pytest.raises(InputError, match="RIFX.*convert it"):
    video_reader.read_audio(path)


def test_50_ms_can_drive_a_face_and_10_ms_cannot(tmp_path):
  path = tmp_path / "short.wav"
  soundfile.write(path, _tone(0.05, 48000), 48000)
  sound = video_reader.read_audio(path)
  assert len(sound) == 800
  assert speech_waveform.check(sound)
  soundfile.write(path, _tone(0.01, 48000), 48000)
  with pytest.raises(InputError, match="lasts 10 ms"):
    speech_waveform.check(video_reader.read_audio(path))
  # A single sample at 48 kHz is less than one at 16 kHz.
  soundfile.write(path, _tone(1, 1), 48000)
  with pytest.raises(InputError, match="empty"):
    speech_waveform.check(video_reader.read_audio(path))


def test_a_file_of_zeros_is_silent(tmp_path):
  path = tmp_path / "zeros.wav"
  soundfile.write(path, np.zeros((44100, 2)), 44100)
  with pytest.raises(InputError, match="the sound is silent"):
    speech_waveform.check(video_reader.read_audio(path))
  assert not speech_waveform.check(video_reader.read_audio(path), silence=True)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(
  "bad", [np.nan, np.inf, -np.inf, (np.inf, -np.inf), (3e38, 3e38)]
)
def test_one_bad_sample_is_refused_by_the_files_name(tmp_path, rate, bad):
  path = tmp_path / "bad.wav"
  sound = np.stack([_tone(1.0, rate)] * 2, 1)
  sound[rate - 1] = bad  # (3e38 twice: finite, and their sum is not.)
  soundfile.write(path, sound, rate, subtype="FLOAT")
  with pytest.raises(InputError, match="bad.wav has samples that are not"):
    video_reader.read_audio(path)


@pytest.mark.parametrize("block", [1, 640, 1000, 10**6])
def test_blocks_joined_are_the_whole(tmp_path, block):
  path = tmp_path / "sound.wav"
  soundfile.write(path, synthetic.speech_like(0.3, 22050), 22050)
  whole = video_reader.read_audio(path)
  blocks = list(video_reader.stream_audio(path, block))
  assert {len(b) for b in blocks[:-1]} <= {block}
  assert 1 <= len(blocks[-1]) <= block
  np.testing.assert_array_equal(np.concatenate(blocks), whole)


def _traced(function):
  """The peak of what numpy and Python allocate, in bytes."""
  tracemalloc.start()
  try:
    function()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


def test_reading_takes_no_more_memory_than_its_result(tmp_path):
  path = tmp_path / "long.flac"
  seconds = 600
  soundfile.write(path, np.stack([_tone(seconds, 8000)] * 2, 1), 8000)
  result = 4 * seconds * SAMPLE_RATE
  # Grown by sixteenths; at this rate the decoded file is as large again.
  assert _traced(lambda: video_reader.read_audio(path)) < 1.3 * result

  def stream():
    for block in video_reader.stream_audio(path, SAMPLE_RATE):
      assert len(block) == SAMPLE_RATE

  # Blocks that are passed on do not stay: 2 % is 12 of these seconds.
  assert _traced(stream) < 0.02 * result


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works(tmp_path, name):
  path = tmp_path / name
  synthetic.write_video(path, num_frames=3, sound=_click(0.1, 0.05, 16000))
  assert len(list(video_reader.read_frames(path))) == 3
  assert video_reader.probe(str(path)).name == name
  assert len(video_reader.read_audio(path)) > 0


def _all(path):
  video_reader.probe(path)
  list(video_reader.read_frames(path))


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
    video_reader.read_audio(path)


def test_a_folder_is_refused(tmp_path):
  with pytest.raises(InputError, match="is a folder"):
    video_reader.probe(tmp_path)


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
    video_reader.probe(wav)
  with pytest.raises(InputError, match="no sound"):
    video_reader.read_audio(video)


def test_what_cannot_drive_a_face_is_refused(tmp_path):
  with pytest.raises(InputError, match="empty"):
    speech_waveform.check(np.zeros(0, np.float32))
  with pytest.raises(InputError, match="silent"):
    speech_waveform.check(np.full(16000, 1e-5, np.float32))
  with pytest.raises(InputError, match="not finite"):
    speech_waveform.check(np.array([0.1, np.nan], np.float32))
  speech_waveform.check(synthetic.speech_like(0.5, 16000))
  path = tmp_path / "nan.wav"
  sound = np.array([0.1, np.nan] * 800, np.float32)
  soundfile.write(path, sound, 16000, subtype="FLOAT")
  with pytest.raises(InputError, match="not finite"):
    video_reader.read_audio(path)


def test_an_empty_wav_is_refused(tmp_path):
  path = tmp_path / "empty.wav"
  soundfile.write(path, np.zeros(0, np.float32), 16000)
  with pytest.raises(InputError, match="empty sound|cannot be read"):
    video_reader.read_audio(path)


def test_fit_length_cuts_and_pads():
  wave = np.arange(5, dtype=np.float32)
  np.testing.assert_array_equal(video_reader.fit_length(wave, 3), [0, 1, 2])
  np.testing.assert_array_equal(
    video_reader.fit_length(wave, 7), [0, 1, 2, 3, 4, 0, 0]
  )


def test_silence_is_judged_by_speech_and_not_by_the_peak():
  rng = np.random.default_rng(0)
  hiss = (10 ** (-90 / 20) * rng.standard_normal(SAMPLE_RATE)).astype("f4")
  click = hiss.copy()
  click[8000] = 0.9
  for sound in (hiss + np.float32(0.5), hiss - np.float32(0.01), click):
    assert not speech_waveform.check(sound, silence=True)
  speech = synthetic.speech_like(1.0, SAMPLE_RATE)
  quiet = speech / np.abs(speech).max() * np.float32(2e-3)
  assert speech_waveform.check(quiet + np.float32(0.5))
  # Speech in a tenth of a second of half a minute is still speech.
  late = np.zeros(30 * SAMPLE_RATE, np.float32)
  late[-4000:] = speech[:4000]
  assert speech_waveform.check(late)
