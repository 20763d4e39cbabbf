"""Keeps two processes from training one run at once."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from pir_jax.runtime import folder_lock


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a run while the body lasts; of several hosts the first one does.

  Raises:
    InputError: another process trains it.
  """
  if jax.process_index() != 0:
    yield
    return
  taken = (
    f"{workdir} is being trained by another process: wait for it, or choose "
    "another --workdir."
  )
  with folder_lock.held(workdir, taken):
    yield
