"""Memory of a compiled program on each device, before it is ever run."""

import ctypes
import sys
import time
from typing import NamedTuple

import jax

from pir_jax.types import InputError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Footprint(NamedTuple):
  """A compiled program on one of its devices; sizes in bytes.

  Attributes:
    arguments: its inputs.
    outputs: its results.
    reused: outputs in the place of donated arguments.
    temporaries: intermediate results, at the peak.
    code: of the program itself.
    flops: floating-point operations of one run, as XLA counts them: the body
      of a loop counts once, however often it runs. None where XLA is silent.
    seconds: of the compilation.
  """

  arguments: int
  outputs: int
  reused: int
  temporaries: int
  code: int
  flops: float | None
  seconds: float

  @property
  def peak(self) -> int:
    """Bytes a device needs for the program and its arguments."""
    return self.arguments + self.outputs - self.reused + self.temporaries


def keep_pages() -> None:
  """Lets the C library keep freed memory instead of giving it back.

  XLA on a CPU asks for the memory of its intermediate results anew at every
  call. Where the C library takes it from the system each time, all of it is
  cleared page by page, and what moves much memory takes two to four times as
  long. Only glibc has the switches; elsewhere nothing changes. A process holds
  on to the most it ever had.
  """
  if sys.platform != "linux":
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:  # Another C library.
    return
  for option, value in (
    # M_ARENA_MAX: few heaps, for what one thread frees another needs; with one
    # alone, those that compile wait for it half of their time.
    (-8, 2),
    (-4, 0),  # M_MMAP_MAX: no block of its own for what is large
    (-1, -1),  # M_TRIM_THRESHOLD: never give back
    (-2, 2**28),  # M_TOP_PAD: grow by 256 MiB
  ):
    mallopt(option, value)


class TooLarge(InputError):
  """A program that does not fit its devices.

  Attributes:
    reason: the compiler's own words.
  """

  def __init__(self, reason: str):
    self.reason = reason
    super().__init__(
      f"the step does not fit the devices ({reason}): take a smaller "
      "--config.data.batch_size or more devices."
    )


def measure(lowered: jax.stages.Lowered) -> Footprint:
  """Compiles a lowered program and returns its footprint.

  Raises:
    TooLarge: the compiler itself finds that it does not fit the device.
  """
  return compile_lowered(lowered)[1]


def compile_lowered(
  lowered: jax.stages.Lowered, options: dict[str, str] | None = None
) -> tuple[jax.stages.Compiled, Footprint]:
  """Compiles a lowered program and returns it with its footprint.

  Args:
    lowered: what to compile.
    options: of the compiler; None: its own.

  Raises:
    TooLarge: the compiler itself finds that it does not fit the device.
  """
  start = time.monotonic()
  try:
    compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise TooLarge(str(error).splitlines()[0]) from error
  seconds = time.monotonic() - start
  sizes, costs = compiled.memory_analysis(), compiled.cost_analysis()
  return compiled, Footprint(
    arguments=sizes.argument_size_in_bytes,
    outputs=sizes.output_size_in_bytes,
    reused=sizes.alias_size_in_bytes,
    temporaries=sizes.temp_size_in_bytes,
    code=sizes.generated_code_size_in_bytes,
    flops=costs.get("flops") if costs else None,
    seconds=seconds,
  )


def readable(num_bytes: int) -> str:
  """Formats bytes with a unit: `3.68 GiB`."""
  size, unit = float(num_bytes), 0
  while size >= 1000 and unit < len(_UNITS) - 1:  # At most three digits.
    size, unit = size / 1024, unit + 1
  return f"{size:.3g} {_UNITS[unit]}"


def describe(footprint: Footprint) -> str:
  """Formats a footprint, one figure a line."""
  f = footprint
  lines = [
    f"{readable(f.peak)} at the peak: arguments, new outputs, temporaries",
    f"{readable(f.arguments)} arguments",
    f"{readable(f.outputs)} outputs, {readable(f.reused)} of it in the place of"
    " arguments",
    f"{readable(f.temporaries)} temporaries",
  ]
  if f.code:  # The CPU's compiler does not report it.
    lines.append(f"{readable(f.code)} code")
  if f.flops is not None:
    lines.append(f"{f.flops:.3g} FLOPs, with a loop's body counted once")
  lines.append(f"{f.seconds:.1f} s to compile")
  return "\n".join(lines)
