"""Writes a file whole or not at all, under a name that was checked before.

A link is followed: the file that it names is replaced, the link stays.
"""

import contextlib
import errno
import io
import os
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator

from pir_jax.types import InputError

Path = str | pathlib.Path

# Of the place, and not of a program: a full or read-only disk.
_FAULTS = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
  *(errno.EROFS, errno.EACCES, errno.EPERM),
)


def check(path: Path, suffixes: tuple[str, ...]) -> None:
  """Checks that a file can be written, before the work and not after it.

  Args:
    path: of the file, in a folder that exists.
    suffixes: of which it must have one, such as ".mp4".

  Raises:
    InputError: it cannot.
  """
  check_name(path, suffixes)
  _check_writable(pathlib.Path(os.path.realpath(path)).parent)


def check_name(path: Path, suffixes: tuple[str, ...]) -> None:
  """Checks that a name is one for a file; its folder may have to be made.

  Raises:
    InputError: it has another suffix, or is a folder.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in suffixes:
    raise InputError(
      f"{path} must end in {' or '.join(suffixes)}: choose such a name."
    )
  if path.is_dir():
    raise InputError(f"{path} is a folder: choose another name.")


def check_folder(path: Path) -> None:
  """Checks that files can be written to a folder, which may have to be made.

  Raises:
    InputError: they cannot.
  """
  path = pathlib.Path(path).absolute()
  while not path.exists() and path != path.parent:
    path = path.parent
  _check_writable(path)


def _check_writable(folder: pathlib.Path) -> None:
  if not folder.exists():
    raise InputError(f"{folder} is not a folder that exists: make it first.")
  if not folder.is_dir():
    raise InputError(f"{folder} is no folder but a file: choose another name.")
  if not os.access(folder, os.W_OK | os.X_OK):
    raise InputError(f"{folder} may not be written to: choose another folder.")


@contextlib.contextmanager
def written(path: Path) -> Iterator[pathlib.Path]:
  """Yields a hidden name beside a file's; the file is there when the body ends.

  Raises:
    InputError: the disk is full or may not be written to; nothing stays.
  """
  place = pathlib.Path(os.path.realpath(path))
  hidden = place.with_name(f".{uuid.uuid4().hex}{place.suffix.lower()}")
  try:
    yield hidden
    hidden.replace(place)
  except OSError as error:
    if error.errno not in _FAULTS:
      raise
    raise InputError(
      f"{path} cannot be written ({os.strerror(error.errno)}): free some space "
      "or choose another place."
    ) from error
  finally:
    hidden.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(
  name: str,
  suffixes: tuple[str, ...],
  finish: Callable[[pathlib.Path], None] | None = None,
) -> Iterator[io.IOBase]:
  """Opens a file for writing; "-" is standard output.

  Then all that is printed goes to standard error.

  Args:
    name: of the file, or "-".
    suffixes: of which a file must have one.
    finish: is called with the finished file before it gets its name.

  Raises:
    InputError: the file cannot be written; it is written whole or not at all.
  """
  if name != "-":
    check(name, suffixes)
    with written(name) as hidden:
      with open(hidden, "wb") as file:
        yield file
      if finish is not None:
        finish(hidden)
    return
  # What libraries print must not get between, either.
  sys.stdout.flush()
  kept = os.dup(1)
  os.dup2(2, 1)
  try:
    # Without a buffer: a reader that is gone is noticed where it is written to.
    with (
      contextlib.redirect_stdout(sys.stderr),
      os.fdopen(os.dup(kept), "wb", buffering=0) as file,
    ):
      yield file
  finally:
    os.dup2(kept, 1)
    os.close(kept)
