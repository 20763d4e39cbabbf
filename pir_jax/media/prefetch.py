"""Prefetching in threads, in order.

Decoding and encoding release Python's lock, so that two cores are used.
"""

import collections
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def taken(
  items: Iterable[A],
  depth: int = 4,
  ended: Callable[[], object] = lambda: None,
) -> Iterator[A]:
  """Yields the items, which a thread makes ahead of time.

  Args:
    items: their errors are raised at the item's place.
    depth: most items in the queue: bounds memory.
    ended: is called when no other is wanted, before the one in the making is
      waited for.
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
    # Every error is raised in the consumer.
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
    ended()
    thread.join()


def done(
  function: Callable[[A], B], items: Iterable[A], workers: int = 2
) -> Iterator[B]:
  """Yields function(item) for each item, in order, computed in threads."""
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
