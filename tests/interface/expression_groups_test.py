"""Groups and presets know the names of the open head, and no others'."""

import numpy as np

from pir_jax.face import open_head
from pir_jax.interface import expression_groups
from pir_jax.types import FaceSpace

NAMES = ("jawOpen", "tongueOut", "eyeBlinkLeft", "mouthPucker", "browInnerUp")


def space(names, scale=1.0):
  ones = np.ones(len(names), np.float32)
  return FaceSpace(3, tuple(names), 0 * ones, scale * ones)


def test_every_name_is_in_one_group_in_its_order():
  groups = expression_groups.grouped(NAMES)
  assert list(groups) == ["jaw", "lips", "eyes", "brows", "rest"]
  assert groups["rest"] == ["tongueOut"]
  assert sorted(sum(groups.values(), [])) == sorted(NAMES)
  assert expression_groups.grouped(["mouthLeft", "mouthClose"]) == {
    "lips": ["mouthLeft", "mouthClose"]
  }
  assert list(expression_groups.grouped(["exp_000", "exp_001"])) == ["rest"]


def test_a_label_is_a_name_without_its_group():
  assert expression_groups.short("mouthSmileLeft", "lips") == "smileLeft"
  assert expression_groups.short("tongueOut", "rest") == "tongueOut"
  assert expression_groups.short("jaw", "jaw") == "jaw"


def test_presets_are_those_whose_names_are_known():
  assert list(expression_groups.presets(NAMES)) == ["open", "brows up"]
  assert not expression_groups.presets(["exp_000"])
  assert len(expression_groups.presets(open_head.EXPRESSION_NAMES)) == 6


def test_ranges_hold_what_is_usual_and_always_the_mean():
  mean = np.float32([0.2, 1.9, -0.7, 0, 0])
  low, high = np.array(expression_groups.slider_ranges(space(NAMES), mean)).T
  np.testing.assert_allclose(low, [-0.5, -0.5, -0.7, -0.5, -0.5])
  np.testing.assert_allclose(high, [1.5, 1.9, 1.5, 1.5, 1.5])
  # Coefficients of other heads are in units of their own.
  ranges = expression_groups.slider_ranges(
    space(["exp_000"], scale=2.0), np.float32([1.0])
  )
  assert ranges == [(-5.0, 7.0)]
