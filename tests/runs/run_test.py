"""A run goes with the run that it was trained on."""

import pathlib
import types

import pytest

from pir_jax.runs.run import check_generator
from pir_jax.types import InputError

FOLDER = pathlib.Path("inpainting")


def _stage(step, joint=False):
  return types.SimpleNamespace(
    triplane_step=step, config=types.SimpleNamespace(joint=joint)
  )


def test_stage_3_refuses_a_stage_2_that_was_trained_on():
  record = {"triplane_step": 100}
  check_generator(FOLDER, record, _stage(100))
  with pytest.raises(InputError, match="now at 200: train stage 3 again"):
    check_generator(FOLDER, record, _stage(200))


def test_what_holds_its_own_generator_or_needs_none_is_let_through():
  check_generator(FOLDER, {"triplane_step": 1}, _stage(2, joint=True))
  expression = types.SimpleNamespace(config=types.SimpleNamespace())
  check_generator(FOLDER, {"triplane_step": None}, expression)
  check_generator(FOLDER, {}, expression)
