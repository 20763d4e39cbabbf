"""Measures of a reenacted video: silence, pixels, openings."""

import numpy as np
import pytest

from pir_jax.evaluation import screening
from pir_jax.metrics import lips
from pir_jax.types import SAMPLE_RATE


def speech(seconds, level=0.3):
  time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
  return np.float32(level * np.sin(2 * np.pi * 200 * time))


def test_pauses_are_silent_and_their_ends_are_not():
  noise = speech(2, 0.3 * 10 ** (-40 / 20))
  sound = np.concatenate([speech(2), noise, speech(2)])
  silent = screening.silent(sound, 25.0, 150)
  # Two seconds less the settling at either end.
  assert np.flatnonzero(silent).tolist() == list(range(55, 95))


def test_quiet_speech_is_speech():
  sound = np.concatenate([speech(2), speech(2, 0.3 * 10 ** (-25 / 20))])
  assert not screening.silent(sound, 25.0, 100).any()


def test_silence_throughout_is_silent():
  assert screening.silent(np.zeros(32000, np.float32), 25.0, 50).all()


def test_after_the_sound_is_silence():
  silent = screening.silent(speech(1), 30.0, 60)
  assert silent[-20:].all() and not silent[:30].any()


def test_short_sound_has_a_loudest_second():
  assert not screening.silent(speech(0.5), 25.0, 12).any()


def test_difference_is_that_of_the_chosen_pixels():
  a = np.full((8, 8, 3), 100, np.uint8)
  b = a.copy()
  b[:2] += 4
  b[7, 7] = 0
  where = np.zeros((8, 8), bool)
  where[:4] = True
  difference = screening.Difference()
  difference.add(a, b, where)
  assert difference.changed == 0
  # Half of them differ by 4: mean square 8.
  assert difference.decibels == pytest.approx(10 * np.log10(255**2 / 8))
  difference.add(a, b, ~where)
  assert difference.changed == 1 / 64


def test_equal_pixels_and_none():
  difference = screening.Difference()
  assert np.isnan(difference.decibels) and np.isnan(difference.changed)
  a = np.zeros((4, 4, 3), np.uint8)
  difference.add(a, a, np.ones((4, 4), bool))
  assert difference.decibels == np.inf


def test_what_the_window_touches_is_not_outside():
  outside = screening._outside((10, 12), np.array([6.0, 5.5, 5.0]))
  assert outside.shape == (10, 12)
  inside = np.argwhere(~outside)
  # From 3.5 to 8.5 and from 3.0 to 8.0; a pixel half inside is inside.
  assert inside.min(0).tolist() == [3, 3] and inside.max(0).tolist() == [7, 8]


def test_eyelids_that_move_together_correlate():
  source = np.array([0.3, 0.3, 0.05, 0.3, np.nan])
  assert screening._blinks(np.stack([source, 0.5 * source])) == pytest.approx(1)
  still = np.full(5, 0.3)
  assert screening._blinks(np.stack([source, still])) == 0
  assert np.isnan(screening._blinks(np.full((2, 5), np.nan)))


def test_openings_are_those_of_silence_and_speech():
  points = np.zeros((2, 100, 468, 2), np.float32)
  points[:, :, 10, 1], points[:, :, 152, 1] = -100, 100
  # The source is open by 2 % throughout; ours by 4 %, in the pause by 1 %.
  lower = [column[1] for column in lips.INNER_LIPS]
  points[0][:, lower, 1] = 4.0
  points[1][:, lower, 1] = 8.0
  points[1][50:, lower, 1] = 2.0
  points[1, 3] = np.nan
  sound = speech(2)
  openings = screening._openings(points, sound, 25.0)
  np.testing.assert_allclose(openings["source_opening"], 2, rtol=1e-5)
  assert openings["num_silent"] == 45  # Five frames of settling.
  assert openings["silent_opening"] == pytest.approx(1)
  assert openings["silent_rank"] == 0
  mute = screening._openings(points, None, 25.0)
  assert mute["num_silent"] == 0 and np.isnan(mute["silent_opening"])
