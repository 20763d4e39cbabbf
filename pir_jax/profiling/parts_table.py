"""The table that a benchmark prints, as lines of text."""

import os

import jax

from pir_jax.profiling.parts import Row
from pir_jax.runtime import memory

_NAMES = 33  # Width of the first column.
# The other headings, and how wide their columns are.
_COLUMNS = (
  ("median ms", 12),
  ("least ms", 11),
  ("GFLOP", 12),
  ("by XLA", 12),
  ("GFLOP/s", 10),
  ("peak memory", 13),
  ("compile s", 11),
)
_SHARE = ("% of peak", 11)
_NOTES = """\
GFLOP: of the algorithm as published, two for a product and its sum; a gradient
counts as two forward passes; activations and low-passes are left out. GFLOP/s:
of these. by XLA: what it counts in our program as written, the body of a loop
once; convolutions by tiles are fewer. Memory: arguments, outputs, temporaries.
"""


def title(topic: str, dtype: str, num_batch: int, repeats: int) -> str:
  """What was measured, and on what."""
  device = jax.devices()[0]
  cores = os.cpu_count()
  usable = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
  )
  return (
    f"{topic} on {device.device_kind} ({device.platform}), {usable} of "
    f"{cores} CPU cores, jax {jax.__version__}, {dtype}, batch of "
    f"{num_batch}, {repeats} repeats"
  )


def head(peak_tflops: float | None) -> str:
  """The headings; one more where the device's peak is known."""
  columns = [*_COLUMNS, _SHARE] if peak_tflops else _COLUMNS
  return " " * _NAMES + "".join(f"{name:>{size}}" for name, size in columns)


def line(row: Row, peak_tflops: float | None) -> str:
  """A row under the headings."""
  timing, program = row.timing, row.program
  rate = row.gflop / timing.median if row.gflop else None
  written = program.written_flops
  cells = [
    f"{1e3 * timing.median:.2f}",
    f"{1e3 * timing.least:.2f}",
    f"{row.gflop:.4g}" if row.gflop else "-",
    f"{written / 1e9:.4g}" if written else "-",
    f"{rate:.4g}" if rate else "-",
    memory.readable(program.footprint.peak),
    f"{program.footprint.seconds:.1f}",
  ]
  text = "".join(
    f"{cell:>{size}}" for cell, (_, size) in zip(cells, _COLUMNS, strict=True)
  )
  if peak_tflops:
    share = f"{rate / peak_tflops / 10:.2f}" if rate else "-"
    text += f"{share:>{_SHARE[1]}}"
  return f"{row.name:{_NAMES}}{text}"


def ending(seconds: dict[str, float]) -> str:
  """What the columns mean, images a second, and the device's own count.

  Args:
    seconds: an image, by the name of its row.
  """
  lines = [
    f"{name}: {1 / taken:.3g} images a second"
    for name, taken in seconds.items()
  ]
  statistics = jax.devices()[0].memory_stats() or {}  # A CPU keeps none.
  if "peak_bytes_in_use" in statistics:
    most = memory.readable(statistics["peak_bytes_in_use"])
    lines += [f"{most} of the device's memory in use at the most, by any row"]
  return _NOTES + "\n".join(lines)
