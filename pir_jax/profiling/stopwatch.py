"""How long compiled programs take, on inputs that are not known beforehand."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pir_jax.runtime import memory


class Program(NamedTuple):
  """A function, compiled.

  Attributes:
    run: takes the arguments again.
    footprint: what it takes on each device; its `flops` are those left after
      the compiler's own rewriting.
    written_flops: of the program as it was written, as XLA counts them: the
      body of a loop counts once. None where XLA is silent.
  """

  run: Callable[..., Any]
  footprint: memory.Footprint
  written_flops: float | None


class Timing(NamedTuple):
  """Seconds of every repeat, in their order."""

  seconds: tuple[float, ...]

  @property
  def median(self) -> float:
    """Of the repeats: what is usual."""
    return statistics.median(self.seconds)

  @property
  def least(self) -> float:
    """Of the repeats: what other programs disturbed the least."""
    return min(self.seconds)


def build(lowered: jax.stages.Lowered) -> Program:
  """Compiles a lowered program.

  What it was lowered for is an argument of it, so that nothing is folded into
  the program. For true seconds of compilation the persistent cache must be off.

  Raises:
    InputError: the compiler itself finds that it does not fit the device.
  """
  footprint = memory.measure(lowered)
  costs = lowered.cost_analysis()
  # It keeps its executable: nothing is compiled a second time.
  return Program(
    lowered.compile(), footprint, costs.get("flops") if costs else None
  )


def clock(
  step: Callable[[Any], Any], start: Any, repeats: int
) -> tuple[Timing, Any]:
  """Times a step that is given what it gave last.

  Args:
    step: `start`, then its own last result, to the next result. So a training
      step may give its state's memory away; what carries nothing on ignores
      what it is given.
    start: given to the first call, which is not timed: it brings pages and
      caches in.
    repeats: that are timed, each up to the moment its result is there.

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
