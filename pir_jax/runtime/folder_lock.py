"""Keeps two processes from one folder."""

import contextlib
import pathlib
from collections.abc import Iterator

import filelock

from pir_jax.types import InputError

FILE = ".lock"


@contextlib.contextmanager
def held(folder: pathlib.Path, taken: str) -> Iterator[None]:
  """Holds a folder, which is made, while the body lasts.

  The system lets go of it however the process ends.

  Args:
    folder: to hold.
    taken: the sentence where another process holds it.

  Raises:
    InputError: another process holds it.
  """
  folder.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(folder / FILE)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout as error:
    raise InputError(taken) from error
  try:
    yield
  finally:
    lock.release()
