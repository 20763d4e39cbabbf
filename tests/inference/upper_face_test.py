"""Brows and blinks come from where they are asked for."""

import numpy as np
import pytest

from pir_jax.inference import upper_face
from pir_jax.types import InputError

NAMES = ("jawOpen", "browInnerUp", "eyeBlinkLeft", "eyeBlinkRight")
NAMES += ("eyeWideLeft", "eyeLookUpLeft")
SECONDS = np.arange(3000) / 25  # Two minutes.
BLINKS = [2, 3]


def _source(shut=0.8):
  source = np.tile(np.float32([0.1, 0.2, 0.1, 0.1, 0.4, 0.3]), (50, 1))
  source[7:10, BLINKS] = shut
  return source


def _apply(**options):
  predicted = np.full((len(SECONDS), len(NAMES)), 0.5, np.float32)
  made = upper_face.apply(predicted, NAMES, SECONDS, _source(), **options)
  assert (predicted == 0.5).all(), "left as it was"
  return made


def test_by_default_brows_and_blinks_are_the_source_s():
  made = _apply()
  assert made.kept.tolist() == [False] + 5 * [True]


def test_all_may_come_from_the_speech():
  made = _apply(brows="speech", blinks="speech")
  assert not made.kept.any()
  assert (made.expression == 0.5).all()


def test_without_blinks_the_eyes_stay_as_open_as_they_mostly_are():
  made = _apply(blinks="none")
  assert made.kept.tolist() == [False, True] + 4 * [False]
  np.testing.assert_allclose(made.expression[:, BLINKS], 0.1)
  np.testing.assert_allclose(made.expression[:, 4:], [[0.4, 0.3]] * 3000)
  assert (made.expression[:, :2] == 0.5).all()


@pytest.mark.parametrize(("shut", "expected"), [(0.8, 0.8), (0.2, 1.0)])
def test_generated_blinks_shut_the_eyes_as_far_as_the_source_s(shut, expected):
  predicted = np.zeros((len(SECONDS), len(NAMES)), np.float32)
  made = upper_face.apply(
    predicted, NAMES, SECONDS, _source(shut), blinks="generated"
  )
  lids = made.expression[:, BLINKS]
  np.testing.assert_array_equal(lids[:, 0], lids[:, 1])
  assert lids.min() == pytest.approx(0.1)
  # A frame may miss the moment at which they are shut.
  assert expected - 0.1 < lids.max() <= expected + 1e-6
  wide, look = made.expression[:, 4:].T
  assert wide[lids[:, 0].argmax()] < 0.1 and wide.max() == pytest.approx(0.4)
  np.testing.assert_allclose(look, 0.3)


def test_generated_blinks_come_at_a_human_rate():
  shut = upper_face.blink_curve(SECONDS) > 0.5
  starts = np.flatnonzero(np.diff(shut.astype(int)) == 1)
  assert 0.7 * upper_face.RATE < len(starts) / 2 < 1.3 * upper_face.RATE
  assert np.diff(SECONDS[starts]).min() > 0.5
  assert 0.03 < shut.mean() < 0.15
  again = upper_face.blink_curve(SECONDS)
  np.testing.assert_array_equal(again > 0.5, shut)


def test_no_frames_have_no_blinks():
  assert upper_face.blink_curve(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("blinks", ["speech", "generated", "none"])
def test_eyes_that_are_not_inpainted_cannot_blink(blinks):
  upper_face.check("source", blinks, "face")
  upper_face.check("source", "source", "lower")
  with pytest.raises(InputError, match="--mask_region=face"):
    upper_face.check("source", blinks, "lower")


def test_an_unknown_way_is_refused():
  with pytest.raises(InputError, match="blinks=often must be one of source"):
    upper_face.check("source", "often", "face")


def test_a_face_model_without_names_cannot_be_told_to_blink():
  numbers = np.zeros((5, 2), np.float32)
  args = numbers, ("expr_0", "expr_1"), SECONDS[:5], numbers
  assert not upper_face.apply(*args).kept.any()
  with pytest.raises(InputError, match="blinks=speech"):
    upper_face.apply(*args, blinks="generated")
