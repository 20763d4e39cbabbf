"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress

Item = TypeVar("Item")

EVERY = 5.0  # Seconds between lines.
SHOWN = True  # False in processes whose work another one reports.


def say(sentence: str) -> None:
  """Prints what is done next."""
  if SHOWN:
    print(sentence, flush=True)


def track(
  items: Iterable[Item], description: str, total: int
) -> Iterator[Item]:
  """Yields the items, and shows how far that is.

  Args:
    items: of the work.
    description: of it, such as "inpainting".
    total: how many items there will be, as far as is known.
  """
  if not SHOWN:
    yield from items
    return
  if sys.stdout.isatty():
    yield from progress.track(items, description=description, total=total)
    return
  start = last = time.monotonic()
  for count, item in enumerate(items, 1):
    yield item
    now = time.monotonic()
    if now - last >= EVERY:
      last = now
      print(
        f"{description}: {count} of {max(count, total)} frames, "
        f"{now - start:.0f} s",
        flush=True,
      )
