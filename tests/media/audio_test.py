"""Sound on the picture's clock: mixing, holes, and changes midway."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic
from pir_jax.media import audio, video_reader
from pir_jax.types import SAMPLE_RATE, InputError


def _tone(seconds, rate, hertz=440):
  time = np.arange(round(seconds * rate)) / rate
  return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.mark.parametrize(
  "layout", ["mono", "stereo", "quad", "5.0", "5.1", "7.1", "5.1.2", "22.2"]
)
def test_a_mix_keeps_what_all_channels_share(layout):
  names = [c.name for c in av.AudioLayout(layout).channels]
  weights = audio.mono_weights(names)
  assert weights.min() >= 0
  assert weights.sum() == pytest.approx(1, abs=1e-6)
  loudest = {
    name for name, w in zip(names, weights, strict=True) if w == weights.max()
  }
  # Speech is in the centre where there is one; the sides are alike.
  assert loudest == (
    {"FC"}
    if "FC" in names and len(names) > 2
    else {n for n in names if n.startswith("F")}
  )
  mirror = {"L": "R", "R": "L"}
  by_name = dict(zip(names, weights, strict=True))
  for name in names:
    other = name[:-1] + mirror.get(name[-1], name[-1])
    assert by_name.get(other, by_name[name]) == by_name[name]
  assert by_name.get("LFE", 0) == 0


def test_speech_in_the_centre_outlives_noise_around_it(tmp_path):
  path = tmp_path / "5.1.flac"
  rng = np.random.default_rng(0)
  speech = _tone(1.0, SAMPLE_RATE)
  channels = 0.1 * rng.standard_normal((len(speech), 6)).astype(np.float32)
  channels[:, 2] = speech  # FL FR FC LFE BL BR
  channels[:, 3] = 0.9 * np.sign(_tone(1.0, SAMPLE_RATE, 40))
  soundfile.write(path, channels, SAMPLE_RATE)
  got = video_reader.read_audio(path)
  share = speech @ got / (speech @ speech)
  rest = got - share * speech
  # A plain mean has speech at 1/6 and would be 6 dB below the bass.
  assert share > 0.25
  assert np.mean((share * speech) ** 2) > 5 * np.mean(rest**2)


def test_channels_without_a_place_count_alike():
  np.testing.assert_allclose(audio.mono_weights(["NONE"] * 4), 0.25)


@pytest.mark.parametrize("second", [(44100, 1), (22050, 2), (48000, 2)])
def test_sound_that_changes_its_kind_midway_goes_on(tmp_path, second):
  parts = []
  for rate, channels in [(44100, 2), second]:
    part = tmp_path / f"{rate}-{channels}.mp3"
    soundfile.write(part, np.stack([_tone(1.0, rate)] * channels, 1), rate)
    parts.append(part.read_bytes())
  path = tmp_path / "both.mp3"
  path.write_bytes(b"".join(parts))
  got = video_reader.read_audio(path)
  # Each mp3 is whole blocks of 1152 samples and the encoder's delay.
  assert 2.0 <= len(got) / SAMPLE_RATE < 2.2
  for half in (got[2000:14000], got[20000:32000]):
    spectrum = np.abs(np.fft.rfft(half * np.hanning(len(half))))
    pitch = np.argmax(spectrum) * SAMPLE_RATE / len(half)
    assert pitch == pytest.approx(440, abs=2)


def _write_pieces(path, starts, *, rate=48000, codec="pcm_s16le"):
  """Pieces at given times, half a second long, a click in each middle."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=rate)
    stream.layout = "mono"
    for start in starts:
      piece = np.zeros((1, rate // 2), np.int16)
      piece[0, rate // 4 : rate // 4 + rate // 500] = 20000
      frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
      frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
      frame.pts = round(start * rate)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(
  "starts",
  [
    (0.0, 0.5, 1.0, 1.5),
    (0.0, 0.5, 3.0, 3.6),  # Holes, as when a network fails.
    (0.0, 0.45, 0.9, 1.35),  # A clock that runs slow: pieces overlap.
    (0.0, 0.515, 1.03, 1.545),  # One that runs fast.
  ],
)
def test_sound_keeps_to_its_times(tmp_path, starts):
  path = tmp_path / "pieces.mkv"
  _write_pieces(path, starts)
  got = video_reader.read_audio(path)
  assert len(got) / SAMPLE_RATE == pytest.approx(starts[-1] + 0.5, abs=0.012)
  loud = np.flatnonzero(np.abs(got) > 0.3) / SAMPLE_RATE
  edges = loud[np.flatnonzero(np.diff(loud, prepend=-1) > 0.1)]
  np.testing.assert_allclose(edges - 0.25, starts, atol=0.010)


def test_a_hole_is_silence_in_small_blocks(tmp_path):
  path = tmp_path / "hole.mkv"
  _write_pieces(path, (0.0, 100.0), rate=8000)
  blocks = [block for _, block in audio.read_sound(path)]
  assert max(len(block) for block in blocks) <= 8000
  assert sum(len(block) for block in blocks) == pytest.approx(804000, abs=80)


@pytest.mark.parametrize("most", [1, 2])
def test_more_channels_than_wanted_become_one(tmp_path, most):
  path = tmp_path / "a.mkv"
  synthetic.write_video(
    path, num_frames=5, sound=_tone(0.2, 48000), sound_rate=48000, layout="5.1"
  )
  shapes = {b.shape[1] for _, b in audio.read_sound(path, most_channels=most)}
  assert shapes == {1}


def _two_channels(path, left, right, subtype="PCM_16"):
  soundfile.write(path, np.stack([left, right], 1), SAMPLE_RATE, subtype)


@pytest.mark.parametrize("right", [-1.0, -0.9, 0.0, 1.0])
def test_channels_that_cancel_are_not_mixed(tmp_path, right):
  path = tmp_path / "stereo.wav"
  speech = synthetic.speech_like(2.0, SAMPLE_RATE)
  _two_channels(path, speech, right * speech)
  got = video_reader.read_audio(path)
  share = speech @ got / (speech @ speech)
  assert abs(share) == pytest.approx(
    1.0 if right < 0 else (1 + right) / 2, abs=0.01
  )
  notes = video_reader.sound_remarks(path, got)
  assert any("cancel" in note for note in notes) == (right < 0)
  # The result has both channels as they are.
  (block,) = {block.shape[1] for _, block in audio.read_sound(path)}
  assert block == 2


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_floats_of_integers_are_scaled(tmp_path, bits):
  path = tmp_path / "raw.wav"
  speech = synthetic.speech_like(1.0, SAMPLE_RATE)
  scale = (2.0 ** (bits - 1) - 1) / np.abs(speech).max()
  soundfile.write(path, scale * speech, SAMPLE_RATE, "FLOAT")
  got = video_reader.read_audio(path)
  np.testing.assert_allclose(np.abs(got).max(), 1, atol=1e-3)
  blocks = [block for _, block in audio.read_sound(path)]
  assert np.abs(np.concatenate(blocks)).max() <= 1
  (note, *_) = video_reader.sound_remarks(path, got)
  assert f"of {bits} bits" in note


def test_a_little_over_full_scale_stays(tmp_path):
  path = tmp_path / "loud.wav"
  speech = synthetic.speech_like(1.0, SAMPLE_RATE)
  speech *= 2 / np.abs(speech).max()
  soundfile.write(path, speech, SAMPLE_RATE, "FLOAT")
  np.testing.assert_array_equal(video_reader.read_audio(path), speech)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_a_file_that_was_cut_is_told(tmp_path, kind):
  whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
  speech = np.random.default_rng(0).normal(0, 0.1, 8 * SAMPLE_RATE)
  soundfile.write(whole, speech, SAMPLE_RATE)
  data = whole.read_bytes()
  cut.write_bytes(data[: int(0.55 * len(data))])
  assert not video_reader.sound_remarks(whole, video_reader.read_audio(whole))
  (note,) = video_reader.sound_remarks(cut, video_reader.read_audio(cut))
  assert note.startswith("was cut short: it declares 8.0 s and ends at 4.")


def test_sound_beside_a_picture_that_cannot_be_decoded(tmp_path):
  path = tmp_path / "odd.mp4"
  speech = synthetic.speech_like(1.0, SAMPLE_RATE)
  synthetic.write_video(path, num_frames=25, sound=speech)
  data = path.read_bytes()
  # Of a codec that nobody has: the picture's four letters.
  assert data.count(b"avc1") >= 1
  path.write_bytes(data.replace(b"avc1", b"xyz1"))
  with pytest.raises(InputError):
    video_reader.probe(path)
  assert len(video_reader.read_audio(path)) == pytest.approx(16000, abs=1100)


def test_a_click_far_above_full_scale_is_no_integer(tmp_path):
  path = tmp_path / "click.wav"
  speech = synthetic.speech_like(1.0, SAMPLE_RATE)
  speech[8000] = 9.0
  soundfile.write(path, speech, SAMPLE_RATE, "FLOAT")
  np.testing.assert_array_equal(video_reader.read_audio(path), speech)
