"""Work that is done ahead of who asks for it, in threads, in order.

Decoding and encoding leave Python's lock alone, so that two cores are used.
"""

import collections
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def taken(items: Iterable[A], depth: int = 4) -> Iterator[A]:
  """The items, the next of which a thread is already making.

  Args:
    items: an error of theirs is raised where the item would have come.
    depth: how many may wait: bounds memory.
  """
  waiting: queue.Queue = queue.Queue(depth)
  stopped = threading.Event()

  def put(kind: str, value: object) -> bool:
    while not stopped.is_set():
      try:
        waiting.put((kind, value), timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def make() -> None:
    try:
      for item in items:
        if not put("item", item):
          return
      put("end", None)
    # Whatever it is, it belongs to the one who asks.
    except BaseException as error:
      put("error", error)

  thread = threading.Thread(target=make, daemon=True)
  thread.start()
  try:
    while True:
      kind, value = waiting.get()
      if kind == "error":
        raise value
      if kind == "end":
        return
      yield value
  finally:
    stopped.set()
    thread.join()


def done(
  function: Callable[[A], B], items: Iterable[A], workers: int = 2
) -> Iterator[B]:
  """function(item) for each item, in order, some of them at once."""
  with futures.ThreadPoolExecutor(workers) as pool:
    running: collections.deque[futures.Future] = collections.deque()
    try:
      for item in items:
        running.append(pool.submit(function, item))
        if len(running) > 2 * workers:
          yield running.popleft().result()
      while running:
        yield running.popleft().result()
    finally:
      for future in running:
        future.cancel()
