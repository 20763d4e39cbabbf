"""How lips follow, and how late, is recovered from shifted copies."""

import numpy as np
import pytest

from pir_jax.evaluation import following
from pir_jax.types import FRAME_RATE


def curve(times):
  return np.sin(7 * times) + np.sin(11.3 * times + 1)


@pytest.mark.parametrize("fps", [5.0, 25.0, 30.0])
@pytest.mark.parametrize("late", [-0.12, 0.0, 0.2])
def test_a_shift_is_recovered_at_any_frame_rate(fps, late):
  times = np.arange(round(20 * fps)) / fps
  predicted = curve(np.arange(20 * FRAME_RATE) / FRAME_RATE)
  opening = 3 * curve(times - late) + 1
  opening[3] = np.nan
  correlation, lateness = following.follow(opening, fps, predicted)
  assert correlation > 0.98
  assert lateness == pytest.approx(late, abs=0.011)


def test_lips_that_do_not_move_follow_nothing():
  predicted = curve(np.arange(50) / FRAME_RATE)
  assert following.follow(np.ones(50), 25.0, predicted)[0] == 0
  nowhere = following.follow(np.full(50, np.nan), 25.0, predicted)
  assert np.isnan(nowhere).all()
