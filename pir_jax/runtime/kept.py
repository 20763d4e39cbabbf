"""Folders that are kept to be quick the next time, and bounded.

Each is an entry, written whole or not at all; what was used longest ago goes.
A disk that is full or may not be written to is no error: then nothing is kept.
"""

import os
import pathlib
import shutil
import uuid
from collections.abc import Callable

MAX_BYTES = 2 * 2**30  # Of one kind.


def write(
  place: pathlib.Path | None, make: Callable[[pathlib.Path], None]
) -> None:
  """Makes an entry.

  Args:
    place: of it; None keeps nothing.
    make: writes its files to an empty folder.
  """
  if place is None:
    return
  hidden = place.with_name(f".{uuid.uuid4().hex}")
  try:
    hidden.mkdir(parents=True)
    make(hidden)
    shutil.rmtree(place, ignore_errors=True)
    hidden.replace(place)
    _forget_oldest(place.parent)
  except OSError:
    pass  # It is made again the next time.
  finally:
    shutil.rmtree(hidden, ignore_errors=True)


def use(place: pathlib.Path | None) -> bool:
  """Returns whether there is an entry, which is then the last one to go."""
  if place is None or not place.is_dir():
    return False
  try:
    os.utime(place)
  except OSError:
    return False
  return True


def drop(place: pathlib.Path) -> None:
  """Deletes an entry, which may be damaged."""
  shutil.rmtree(place, ignore_errors=True)


def size(root: pathlib.Path | None) -> tuple[int, int]:
  """Returns how many entries there are, and their bytes."""
  entries = _entries(root)
  return len(entries), sum(map(_bytes_of, entries))


def clear(root: pathlib.Path | None) -> None:
  """Deletes all entries."""
  for place in _entries(root):
    drop(place)


def _forget_oldest(root: pathlib.Path) -> None:
  total = 0
  for place in sorted(_entries(root), key=_used, reverse=True):
    total += _bytes_of(place)
    if total > MAX_BYTES:
      drop(place)


def _entries(root: pathlib.Path | None) -> list[pathlib.Path]:
  return [x for x in root.glob("[!.]*") if x.is_dir()] if root else []


def _used(place: pathlib.Path) -> float:
  return place.stat().st_mtime if place.exists() else 0.0


def _bytes_of(place: pathlib.Path) -> int:
  return sum(file.stat().st_size for file in place.glob("*"))
