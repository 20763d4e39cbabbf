"""Levels of sounds whose levels are known."""

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.media import loudness
from pir_jax.types import SAMPLE_RATE


def tone(frequency: float, seconds: float = 4.0, gain: float = 1.0):
  time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
  return (gain * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def test_the_standards_own_tone():
  """A full-scale sine of 997 Hz in one channel is -3.01 LUFS (BS.1770)."""
  # 0.05: at 16 kHz the shelf bends a little differently than at 48 kHz.
  assert loudness.integrated(tone(997)) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("gain", [0.5, 0.1, 0.01])
def test_loudness_follows_the_gain(gain):
  change = loudness.integrated(tone(997, gain=gain)) - loudness.integrated(
    tone(997)
  )
  assert change == pytest.approx(20 * np.log10(gain), abs=1e-3)


def test_low_tones_weigh_little():
  assert loudness.integrated(tone(30)) < loudness.integrated(tone(997)) - 5


def test_pauses_do_not_count():
  speech = tone(400, gain=0.2)
  with_pause = np.concatenate([speech, np.zeros_like(speech), speech])
  # Blocks at the edges of the pause are half full: a little is lost.
  assert loudness.integrated(with_pause) == pytest.approx(
    loudness.integrated(speech), abs=0.3
  )


def test_clipping_shows_in_the_peaks():
  speech = synthetic.speech_like(8.0, SAMPLE_RATE)
  whole = loudness.measure(speech)
  hard = loudness.measure(np.clip(5 * speech, -1.0, 1.0))
  assert whole.clipped < 0.003 < 0.01 < hard.clipped
  # Clipping shows at any level it was turned down to afterwards.
  soft = loudness.measure(0.1 * np.clip(5 * speech, -1.0, 1.0))
  assert soft.clipped == pytest.approx(hard.clipped, rel=0.01)


def test_background_and_pauses():
  rng = np.random.default_rng(0)
  hiss = 1e-3 * rng.normal(size=8 * SAMPLE_RATE).astype(np.float32)
  speech = tone(300, 8.0, gain=0.3)
  speech[: 2 * SAMPLE_RATE] = 0  # A quarter of it.
  made = loudness.measure(speech + hiss)
  assert made.noise == pytest.approx(-60, abs=0.5)
  assert made.speech == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)
  assert made.silence == pytest.approx(0.25, abs=0.01)


def test_silence_and_nothing():
  nothing = loudness.measure(np.zeros(0, np.float32))
  assert nothing.loudness is None and nothing.silence is None
  silent = loudness.measure(np.zeros(SAMPLE_RATE, np.float32))
  assert silent.loudness is None
  assert silent.noise == silent.speech == pytest.approx(loudness.QUIETEST)
  assert silent.silence == 1.0 and silent.clipped == 0.0


def test_a_quiet_tone_is_as_loud_as_its_level():
  """A sine of 997 Hz at -20 dB of full scale is -23.01 LUFS."""
  quiet = loudness.integrated(tone(997, gain=0.1))
  assert quiet == pytest.approx(-23.01, abs=0.05)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.399])
def test_less_than_a_block_has_no_loudness(seconds):
  assert loudness.integrated(tone(997, seconds)) is None
  assert loudness.integrated(tone(997, 0.4)) is not None


def test_long_sounds_are_as_loud_as_short_ones():
  """Two minutes and a bit of stationary noise, and its first ten seconds."""
  rng = np.random.default_rng(1)
  sound = 0.1 * rng.normal(size=140 * SAMPLE_RATE + 77).astype(np.float32)
  short = loudness.integrated(sound[: 10 * SAMPLE_RATE])
  # 160,000 samples: their power is known to about 0.4 %, or 0.02 dB.
  assert loudness.integrated(sound) == pytest.approx(short, abs=0.05)
