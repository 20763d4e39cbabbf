"""Times compiled programs and counts their operations."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from pir_jax.runtime import flops, memory


class Program(NamedTuple):
  """A function, compiled.

  Attributes:
    run: the compiled function, of the same arguments.
    footprint: its memory on each device and seconds of compilation.
    flops: operations of its matrix products and convolutions, loops
      multiplied (`runtime.flops`).
  """

  run: Callable[..., Any]
  footprint: memory.Footprint
  flops: float


class Timing(NamedTuple):
  """Seconds of every repeat, in their order."""

  seconds: tuple[float, ...]

  @property
  def median(self) -> float:
    """Returns the median of the repeats."""
    return statistics.median(self.seconds)

  @property
  def least(self) -> float:
    """Returns the shortest repeat, which other programs disturbed least."""
    return min(self.seconds)


def build(traced: jax.stages.Traced) -> Program:
  """Compiles a traced program.

  Its inputs are arguments, so that nothing is folded into the program. For true
  seconds of compilation the persistent cache must be off.

  Raises:
    InputError: the compiler reports that it does not fit the device.
  """
  lowered = traced.lower()
  footprint = memory.measure(lowered)
  # It keeps its executable: nothing is compiled a second time.
  return Program(
    lowered.compile(), footprint, flops.of_jaxpr(traced.jaxpr.jaxpr)
  )


def clock(
  step: Callable[[Any], Any], start: Any, repeats: int
) -> tuple[Timing, Any]:
  """Times a step that takes its own last result.

  Args:
    step: last result -> next result, so that a training step may donate its
      state; a step without a state ignores its argument.
    start: argument of the first call, which is not timed: it fills caches.
    repeats: how many calls are timed, each until its result is ready.

  Returns:
    The times, and the last result.
  """
  if repeats < 1:
    raise ValueError(f"repeats={repeats} must be at least 1")
  state = jax.block_until_ready(step(start))
  seconds = []
  for _ in range(repeats):
    begin = time.perf_counter()
    state = jax.block_until_ready(step(state))
    seconds.append(time.perf_counter() - begin)
  return Timing(tuple(seconds)), state


def by_turns(runs: Sequence[Callable[[], Any]], repeats: int) -> list[Timing]:
  """Times several by turns, so that a busy spell of the machine hits all.

  Before each timed call comes one that is not: the others have left caches and
  heaps of their own, which may double the time of whoever comes next.

  Args:
    runs: each returns when it is done.
    repeats: how often each is timed.
  """
  seconds = [[] for _ in runs]
  for _ in range(repeats):
    for run, times in zip(runs, seconds, strict=True):
      run()
      begin = time.perf_counter()
      run()
      times.append(time.perf_counter() - begin)
  return [Timing(tuple(times)) for times in seconds]
