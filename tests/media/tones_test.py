"""Music is told from speech by tones that keep their pitch."""

import numpy as np
import pytest

from pir_jax import assets
from pir_jax.media import tones, video_reader
from pir_jax.types import SAMPLE_RATE


def _chords(seconds, a_second, overtones, decay):
  """Major chords on random notes, each struck anew."""
  rng = np.random.default_rng(0)
  length = SAMPLE_RATE // a_second
  time = np.arange(length) / SAMPLE_RATE
  parts = []
  for _ in range(seconds * a_second):
    root = 220 * 2 ** (rng.integers(0, 12) / 12)
    notes = [
      np.sin(2 * np.pi * root * ratio * k * time) / k
      for ratio in (1, 5 / 4, 3 / 2)
      for k in range(1, overtones + 1)
    ]
    parts.append(np.sum(notes, 0) * np.exp(-decay * time))
  return np.float32(0.05 * np.concatenate(parts))


@pytest.mark.parametrize("a_second", [1, 2, 4])
@pytest.mark.parametrize("overtones", [1, 7])
@pytest.mark.parametrize("decay", [0, 3])
def test_chords_are_music(a_second, overtones, decay):
  music = _chords(6, a_second, overtones, decay)
  assert tones.steady_share(music) > tones.MUSIC


def test_speech_is_none():
  speech = video_reader.read_audio(assets.fetch("demo_audio"))
  assert tones.steady_share(speech) < tones.MUSIC / 2


def test_noise_and_silence_are_none():
  noise = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE)
  assert tones.steady_share(np.float32(noise)) < 0.05
  assert tones.steady_share(np.zeros(SAMPLE_RATE, np.float32)) == 0
  assert tones.steady_share(np.zeros(100, np.float32)) is None


def test_an_hour_is_measured_in_pieces():
  music = np.tile(_chords(10, 1, 1, 0), 60)
  share = tones.steady_share(music)
  assert share == pytest.approx(tones.steady_share(music[:160000]), abs=0.1)
