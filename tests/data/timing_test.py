"""Clocks: ticks of FRAME_RATE against source frames at any rate."""

from fractions import Fraction

import numpy as np
import pytest

from pir_jax.data import timing

RATES = ["24000/1001", "25", "30000/1001", "30", "50", "60", "12"]


@pytest.mark.parametrize("rate", RATES)
def test_ticks_cover_the_clip_and_frames_lie_within_half_a_source_frame(rate):
  rate = Fraction(rate)
  times = np.array([float(i / rate) for i in range(round(4 * rate))])
  ticks = timing.tick_times(times)
  assert abs(len(ticks) / 25 - len(times) / rate) <= 0.5 / 25 + 1e-9
  nearest = timing.nearest_frames(times, ticks)
  # Half a source frame is the law; the last tick may lie past the last frame.
  limit = float(0.5 / rate) + 1e-6
  inside = ticks <= times[-1]
  assert np.all(np.abs(times[nearest] - ticks)[inside] <= limit)
  assert np.all(np.diff(nearest) >= 0)


def test_nearest_is_nearest_at_uneven_times():
  rng = np.random.default_rng(0)
  times = np.cumsum(rng.uniform(0.01, 0.1, 50))
  ticks = rng.uniform(times[0] - 0.1, times[-1] + 0.1, 200)
  distance = np.abs(times[:, None] - ticks)
  found = timing.nearest_frames(times, np.sort(ticks))
  distance = np.abs(times[:, None] - np.sort(ticks))
  taken = distance[found, np.arange(200)]
  np.testing.assert_allclose(taken, distance.min(0), atol=2e-6)


def test_slow_video_gives_each_frame_once_and_fast_video_drops_frames():
  slow = np.arange(48) / 12
  np.testing.assert_array_equal(timing.select_frames(slow), np.arange(48))
  fast = np.arange(100) / 50
  np.testing.assert_array_equal(
    timing.select_frames(fast), np.arange(0, 100, 2)
  )


def test_interpolation_is_exact_for_a_straight_line():
  times = np.array([0.0, 0.1, 0.17, 0.3])
  values = np.stack([times * 2 + 1, -times], -1)
  ticks = np.array([0.0, 0.04, 0.1, 0.12, 0.3])
  got, valid = timing.interpolate(times, values, np.ones(4, bool), ticks)
  want = np.stack([ticks * 2 + 1, -ticks], -1)
  np.testing.assert_allclose(got, want, atol=1e-12)  # float64 rounding
  assert valid.all()


def test_an_unknown_frame_spoils_only_what_is_made_of_it():
  times = np.arange(5) / 12
  known = np.array([True, True, False, True, True])
  ticks = np.array([0, 0.04, 0.12, 1 / 12, 2 / 12, 3 / 12, 0.26])
  _, valid = timing.interpolate(times, np.ones((5, 1)), known, ticks)
  np.testing.assert_array_equal(valid, [1, 1, 0, 1, 0, 1, 1])


def test_nothing_is_known_in_the_middle_of_a_long_hold():
  times = np.array([0.0, 0.1, 0.5, 1.5, 1.6])
  values, known = times[:, None], np.ones(5, bool)
  ticks = np.arange(0, 1.61, 0.1)
  got, valid = timing.interpolate(times, values, known, ticks, longest=0.4)
  np.testing.assert_allclose(got[:, 0], ticks, atol=1e-12)  # float64
  np.testing.assert_array_equal(valid, (ticks < 0.51) | (ticks > 1.49))


@pytest.mark.parametrize("rate", [12, 25, 59.94])
def test_held_out_is_the_last_eleventh(rate):
  times = np.arange(round(11 * rate)) / rate
  start = timing.held_out_start(times)
  assert abs((len(times) - start) / rate - 1.0) <= 1.01 / rate


def test_one_frame_is_one_tick():
  times = np.zeros(1)
  assert len(timing.tick_times(times)) == 1
  np.testing.assert_array_equal(timing.select_frames(times), [0])
