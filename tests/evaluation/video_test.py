"""A reenacted video is measured by its source: silence, pixels, openings."""

import numpy as np
import pytest

from pir_jax.evaluation import video
from pir_jax.metrics import lips
from pir_jax.types import SAMPLE_RATE


def speech(seconds, level=0.3):
  time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
  return np.float32(level * np.sin(2 * np.pi * 200 * time))


def test_pauses_are_silent_and_their_ends_are_not():
  noise = speech(2, 0.3 * 10 ** (-40 / 20))
  sound = np.concatenate([speech(2), noise, speech(2)])
  silent = video.silent(sound, 25.0, 150)
  # Two seconds less the settling at either end.
  assert np.flatnonzero(silent).tolist() == list(range(55, 95))


def test_quiet_speech_is_speech():
  sound = np.concatenate([speech(2), speech(2, 0.3 * 10 ** (-25 / 20))])
  assert not video.silent(sound, 25.0, 100).any()


def test_silence_throughout_is_silent():
  assert video.silent(np.zeros(32000, np.float32), 25.0, 50).all()


def test_after_the_sound_is_silence():
  silent = video.silent(speech(1), 30.0, 60)
  assert silent[-20:].all() and not silent[:30].any()


def test_short_sound_has_a_loudest_second():
  assert not video.silent(speech(0.5), 25.0, 12).any()


def test_difference_is_that_of_the_chosen_pixels():
  a = np.full((8, 8, 3), 100, np.uint8)
  b = a.copy()
  b[:2] += 4
  b[7, 7] = 0
  where = np.zeros((8, 8), bool)
  where[:4] = True
  difference = video.Difference()
  difference.add(a, b, where)
  assert difference.changed == 0
  # Half of them differ by 4: mean square 8.
  assert difference.decibels == pytest.approx(10 * np.log10(255**2 / 8))
  difference.add(a, b, ~where)
  assert difference.changed == 1 / 64


def test_equal_pixels_and_none():
  difference = video.Difference()
  assert np.isnan(difference.decibels) and np.isnan(difference.changed)
  a = np.zeros((4, 4, 3), np.uint8)
  difference.add(a, a, np.ones((4, 4), bool))
  assert difference.decibels == np.inf


def test_what_the_window_touches_is_not_outside():
  outside = video._outside((10, 12), np.array([6.0, 5.5, 5.0]))
  assert outside.shape == (10, 12)
  inside = np.argwhere(~outside)
  # From 3.5 to 8.5 and from 3.0 to 8.0; a pixel half inside is inside.
  assert inside.min(0).tolist() == [3, 3] and inside.max(0).tolist() == [7, 8]


@pytest.fixture
def screened():
  return video.Screened(
    num_frames=50,
    num_faceless=2,
    outside_window=41.0,
    outside_mask=40.0,
    changed_outside=0.02,
    inside_mask=22.0,
    seam_edge=1.0,
    seam_feather=0.9,
    seam_tone=1.1,
    jitter=0.8,
    flicker=0.7,
    blinks=0.95,
    source_opening=(0.5, 3.0, 9.0),
    output_opening=(0.4, 3.0, 8.0),
    num_silent=12,
    silent_opening=0.6,
    silent_rank=0.06,
  )


def test_report_says_how_eyelids_follow_and_whether_texture_flickers(screened):
  text = video.as_text(screened, "a.mp4", "b.mp4")
  assert "flicker inside the mask       0.70" in text
  assert "eyelids follow the source's     0.95" in text


def test_eyelids_that_move_together_correlate():
  source = np.array([0.3, 0.3, 0.05, 0.3, np.nan])
  assert video._blinks(np.stack([source, 0.5 * source])) == pytest.approx(1)
  still = np.full(5, 0.3)
  assert video._blinks(np.stack([source, still])) == 0
  assert np.isnan(video._blinks(np.full((2, 5), np.nan)))


def test_report_says_whether_the_mouth_is_closed(screened):
  assert "closed; 6 %" in video.as_text(screened, "a.mp4", "b.mp4")
  opened = screened._replace(silent_opening=3.0, silent_rank=0.5)
  assert "NOT closed; 50 %" in video.as_text(opened, "a.mp4", "b.mp4")
  nothing = screened._replace(
    num_silent=0, silent_opening=float("nan"), silent_rank=float("nan")
  )
  text = video.as_text(nothing, "a.mp4", "b.mp4")
  assert "no silence" in text and "closed" not in text


def test_json_has_neither_nan_nor_infinity():
  plain = video._plain((1.0, float("inf"), float("nan")))
  assert plain == [1.0, None, None]


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
  openings = video._openings(points, sound, 25.0)
  np.testing.assert_allclose(openings["source_opening"], 2, rtol=1e-5)
  assert openings["num_silent"] == 45  # Five frames of settling.
  assert openings["silent_opening"] == pytest.approx(1)
  assert openings["silent_rank"] == 0
  mute = video._openings(points, None, 25.0)
  assert mute["num_silent"] == 0 and np.isnan(mute["silent_opening"])
