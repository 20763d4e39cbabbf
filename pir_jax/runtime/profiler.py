"""A trace of some steps on request, for xprof or TensorBoard's profiler."""

import contextlib
import pathlib

import jax

from pir_jax.types import InputError


def parse(text: str | None) -> tuple[int, int] | None:
  """`START:STEPS` as (first step, number of steps); None of nothing.

  Raises:
    InputError: it is something else.
  """
  if not text:
    return None
  start, _, num_steps = text.partition(":")
  for number in (start, num_steps):
    if not (number.isascii() and number.isdigit() and int(number)):
      raise InputError(
        f"--profile={text} is not START:STEPS, two whole numbers from 1: say "
        "--profile=20:5 for the steps 20 to 24."
      )
  return int(start), int(num_steps)


class Trace:
  """Records the steps asked for into `workdir`/profile; a context manager."""

  def __init__(
    self, wanted: tuple[int, int] | None, workdir: pathlib.Path, steps: range
  ):
    """Notes what is wanted.

    Args:
      wanted: first step and number of steps; None: nothing is recorded.
      workdir: of the run.
      steps: that will be taken, the first step of a run being 1.

    Raises:
      InputError: what is wanted is not among these.
    """
    self._folder = workdir / "profile"
    self._recording = False
    first, num_steps = wanted or (0, 0)
    self._wanted = range(first, first + num_steps)
    if self._wanted and not (first in steps and self._wanted[-1] in steps):
      left = (
        f"goes from step {steps[0]} to {steps[-1]}" if steps else "is finished"
      )
      raise InputError(
        f"--profile={first}:{num_steps} asks for the steps {first} to "
        f"{self._wanted[-1]}, but the run {left}: choose steps of it."
      )
    if jax.process_index():  # One machine's processes share the file's name.
      self._wanted = range(0)

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *unused_error) -> None:
    if self._recording:
      self.finish()

  def step(self, step: int) -> contextlib.AbstractContextManager:
    """Around the step that makes `step` done."""
    if self._wanted and step == self._wanted[0]:
      jax.profiler.start_trace(str(self._folder))
      self._recording = True
    return jax.profiler.StepTraceAnnotation("step", step_num=step)

  def ends(self, step: int) -> bool:
    """Whether `step` is the last one wanted."""
    return self._recording and step == self._wanted[-1]

  def finish(self) -> str:
    """Writes the trace and says so. The device must have done its steps."""
    self._recording = False
    jax.profiler.stop_trace()
    return (
      f"steps {self._wanted[0]} to {self._wanted[-1]} are traced: look at them "
      f"with `xprof --logdir={self._folder}`"
    )
