"""Estimates a step's memory before it is compiled: its trace, and the device's.

Compiling the paper's sizes takes minutes and tens of gigabytes, so what cannot
fit is known from the trace, in seconds. It is an estimate: XLA fuses, and
orders operations as it likes.
"""

import math
import pathlib
from typing import Any

import jax
from jax.extend import core

# What XLA fuses into its only consumer, and so never writes to memory.
_FUSED = {
  *("add", "sub", "mul", "div", "neg", "sign", "max", "min", "abs", "sqrt"),
  *("rsqrt", "exp", "log", "tanh", "logistic", "erf", "sin", "cos", "pow"),
  *("integer_pow", "square", "select_n", "convert_element_type", "copy"),
  *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "iota"),
  *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "clamp", "pad"),
  *("slice", "is_finite", "stop_gradient", "add_any", "floor", "rev"),
}
_MEMINFO = pathlib.Path("/proc/meminfo")


def temporaries(jaxpr: core.Jaxpr) -> int:
  """Estimates the bytes of a program's intermediate results, at the peak.

  Each lives from the operation that makes it to the last one that reads it.
  Values that one elementwise operation hands to one other take none.
  """
  last, uses = {}, {}
  for i, equation in enumerate(jaxpr.eqns):
    for variable in equation.invars:
      if not isinstance(variable, core.Literal):
        last[variable] = i
        uses[variable] = uses.get(variable, 0) + 1
  ends: dict[int, list] = {}
  results = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
  for variable, i in last.items():
    ends.setdefault(i, []).append(variable)
  sizes: dict[Any, int] = {}
  alive = peak = 0
  for i, equation in enumerate(jaxpr.eqns):
    inner = max(map(temporaries, _inner(equation)), default=0)
    for variable in equation.outvars:
      fused = equation.primitive.name in _FUSED and uses.get(variable, 0) == 1
      if variable not in results and not fused:
        sizes[variable] = _bytes(variable.aval)
        alive += sizes[variable]
    peak = max(peak, alive + inner)
    for variable in ends.get(i, []):
      alive -= sizes.pop(variable, 0)
  return peak


def _inner(equation) -> list[core.Jaxpr]:
  """Returns the programs that an operation runs."""
  programs = []
  for value in equation.params.values():
    for each in value if isinstance(value, tuple | list) else (value,):
      if isinstance(each, core.ClosedJaxpr):
        programs.append(each.jaxpr)
      elif isinstance(each, core.Jaxpr):
        programs.append(each)
  return programs


def _bytes(aval) -> int:
  size = math.prod(getattr(aval, "shape", ()))
  return size * getattr(getattr(aval, "dtype", None), "itemsize", 4)


def free_bytes(device: jax.Device) -> int | None:
  """Returns the memory that a program can have; None where it is not known."""
  stats = device.memory_stats() or {}
  if "bytes_limit" in stats:
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
  if device.platform != "cpu" or not _MEMINFO.exists():
    return None
  lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
  free = int(lines["MemAvailable"].split()[0]) * 1024
  for name in ("memory.max", "memory/memory.limit_in_bytes"):
    limit = pathlib.Path("/sys/fs/cgroup") / name
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
      free = min(free, int(text))
  return free
