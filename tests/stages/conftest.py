"""In these tests a second trace of a compiled phase is an error."""

import functools
import itertools

import chex
import pytest

from pir_jax.stages import base

# `start_phase` has one for each length, where a decoder has no context.
PHASES = ("_evaluate_phase", "encode_phase", "extend_phase")

_COUNT = itertools.count()


def traced_once(function):
  """A function that fails where it is traced, and so compiled, again."""

  @functools.wraps(function)
  def named(*args, **kwargs):
    return function(*args, **kwargs)

  # chex counts by name and source, and stages of equal source are many.
  name = getattr(function, "__name__", "phase")
  named.__name__ = f"{name}_{next(_COUNT)}"
  # A partial has no source to be shown.
  named.__wrapped__ = getattr(function, "func", function)
  return chex.assert_max_traces(named, n=1)


@pytest.fixture(autouse=True, scope="module")
def every_phase_is_traced_once():
  """Steps of each static choice, evaluation, and the encoder of any length."""
  init, compile_step = base.Stage.__init__, base.Stage.compile_step

  def init_checked(self, mesh, frozen):
    init(self, mesh, frozen)
    for name in PHASES:
      if hasattr(self, name):
        setattr(self, name, traced_once(getattr(self, name)))

  def compile_checked(self, function, *args, **kwargs):
    return compile_step(self, traced_once(function), *args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(base.Stage, "__init__", init_checked)
    patch.setattr(base.Stage, "compile_step", compile_checked)
    yield
