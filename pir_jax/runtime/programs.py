"""Programs in files: StableHLO, which needs no Python to be made again."""

import pathlib
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax import export

from pir_jax.runtime import compiler_options


def write(
  path: pathlib.Path, function: Callable[..., Any], *shapes: Any
) -> None:
  """Traces a pure function and writes its program.

  Args:
    path: of the file.
    function: of lists of arrays and arrays.
    *shapes: of its arguments; arrays will do.
  """
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes
  )
  exported = export.export(jax.jit(function))(*shapes)
  path.write_bytes(exported.serialize())


class Program:
  """A program of a file, compiled when it is first needed."""

  def __init__(self, path: pathlib.Path):
    """Reads the program.

    It must be one that `write` wrote: of others JAX checks little.
    """
    self._exported = export.deserialize(bytearray(path.read_bytes()))
    self._compiled: Callable | None = None
    self._lock = threading.Lock()

  def compile(self) -> None:
    """Compiles it now, unless that was done; other threads wait."""
    with self._lock:
      if self._compiled is None:
        jitted = jax.jit(
          self._exported.call, compiler_options=compiler_options.usual()
        )
        args, kwargs = self._exported.in_tree.unflatten(self._exported.in_avals)
        self._compiled = jitted.lower(*args, **kwargs).compile()

  def __call__(self, *args: Any) -> Any:
    """Runs it on arrays of its shapes."""
    self.compile()
    return self._compiled(*args)
