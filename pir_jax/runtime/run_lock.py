"""Keeps two processes from training one run at once."""

import contextlib
import pathlib
from collections.abc import Iterator

import filelock
import jax

from pir_jax.types import InputError

FILE = ".lock"


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a run while the body lasts; of several hosts the first one does.

  The system lets go of it however the process ends.

  Raises:
    InputError: another process trains it.
  """
  if jax.process_index() != 0:
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(workdir / FILE)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout as error:
    raise InputError(
      f"{workdir} is being trained by another process: wait for it, or choose "
      "another --workdir."
    ) from error
  try:
    yield
  finally:
    lock.release()
