"""A trace of some steps on request, for xprof or TensorBoard's profiler."""

import contextlib
import pathlib

import jax

from pir_jax.types import InputError


def parse(text: str | None) -> tuple[int, int] | None:
  """Parses `START:STEPS` as (first step, number of steps); None if empty.

  Raises:
    InputError: it is something else.
  """
  if not text:
    return None
  start, _, num_steps = text.partition(":")
  for part in (start, num_steps):
    if not (part.isascii() and part.isdigit() and int(part)):
      raise InputError(
        f"--profile={text} is not START:STEPS, two integers from 1: set "
        "--profile=20:5 for the steps 20 to 24."
      )
  return int(start), int(num_steps)


class Trace:
  """Records the requested steps into `workdir`/profile; a context manager."""

  def __init__(
    self, wanted: tuple[int, int] | None, workdir: pathlib.Path, steps: range
  ):
    """Checks the requested steps.

    Args:
      wanted: first step and number of steps; None records nothing.
      workdir: of the run.
      steps: that will be taken, the first step of a run being 1.

    Raises:
      InputError: the run does not take all of them.
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
    """Returns a context around step number `step`, and starts the trace."""
    if self._wanted and step == self._wanted[0]:
      jax.profiler.start_trace(str(self._folder))
      self._recording = True
    return jax.profiler.StepTraceAnnotation("step", step_num=step)

  def ends(self, step: int) -> bool:
    """Returns whether `step` is the last requested one."""
    return self._recording and step == self._wanted[-1]

  def finish(self) -> str:
    """Writes the trace, once the device is done; returns how to open it."""
    self._recording = False
    jax.profiler.stop_trace()
    return (
      f"steps {self._wanted[0]} to {self._wanted[-1]} are traced: open them "
      f"with `xprof --logdir={self._folder}`"
    )
