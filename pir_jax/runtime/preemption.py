"""Notices that the machine is wanted: SIGTERM, or Ctrl-C, and what follows.

The loop asks after every step and saves. Before the first step is done there is
nothing to save, and the process ends at once, even while a compiler holds the
main thread.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

# Launchers often send a signal to a process and to its group: one notice.
ECHO = 1.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_watching: "Notice | None" = None


class Preempted(Exception):
  """Training was asked to stop, and did so after saving.

  Attributes:
    step: that was saved.
    workdir: of the run.
    code: to exit with: 0 after a notice, 130 after Ctrl-C.
  """

  def __init__(self, step: int, workdir: pathlib.Path):
    super().__init__(
      f"stopped: step {step} is saved in {workdir}; the same command goes on "
      "from there."
    )
    self.step = step
    self.workdir = workdir
    self.code = 0


class Notice:
  """Whether training is to stop.

  Attributes:
    signal: the first one that this process was sent; None as long as there is
      none.
  """

  def __init__(self) -> None:
    self.signal: int | None = None
    self._worth_saving = False
    self._when = 0.0
    self._cluster = jax.process_count() > 1
    self._forward = _cluster_listener() if self._cluster else None

  @property
  def pending(self) -> bool:
    """A signal came to this process: what takes long may be left out."""
    return self.signal is not None

  def given(self, step: int) -> bool:
    """To be called after every step: must it be saved now, and training stop?

    In a cluster all processes say yes after the same step, one or two steps
    after any of them was sent a signal.

    Args:
      step: optimiser steps done.
    """
    self._worth_saving = True
    if self._cluster:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.pending

  def preempted(self, step: int, workdir: pathlib.Path) -> Preempted:
    """What to raise when `step` is saved."""
    error = Preempted(step, workdir)
    error.code = 130 if self.signal == signal.SIGINT else 0
    return error

  def _heard(self, number: int) -> None:
    # In the watching thread: the main one may be in a compiler for minutes.
    now = time.monotonic()
    if self.signal is not None:
      if now - self._when > ECHO:
        _leave("stopped at once: what was saved before is kept.", 128 + number)
      return
    self.signal, self._when = number, now
    if self._forward is not None:
      self._forward(signal.SIGTERM)
    # Ctrl-C has its own way, which leaves a notebook alive.
    if number == signal.SIGTERM and not self._worth_saving:
      _leave(
        "stopped before the first step was done: the same command goes on from "
        "what was saved, if anything.",
        0,
      )

  def _interrupted(self, *unused: Any) -> None:
    if not self._worth_saving:
      raise KeyboardInterrupt


@contextlib.contextmanager
def watch() -> Iterator[Notice]:
  """Takes SIGTERM and Ctrl-C as notices; a second one stops at once.

  Before the first step is done SIGTERM ends the process, with exit code 0, and
  Ctrl-C is a KeyboardInterrupt. Inside another watch its notice is given again.
  Signals are watched only from the main thread; elsewhere no notice is given.
  In a cluster it must be called after `jax.distributed.initialize`.
  """
  global _watching
  if _watching is not None:
    yield _watching
    return
  notice = Notice()
  if threading.current_thread() is not threading.main_thread():
    yield notice
    return
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  # Python's own handlers wait for the main thread; bytes on a socket do not.
  woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  handlers = {
    signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: None),
    signal.SIGINT: signal.signal(signal.SIGINT, notice._interrupted),
  }
  _watching = notice
  watcher = threading.Thread(
    target=_listen, args=(reader, notice), name="preemption", daemon=True
  )
  watcher.start()
  try:
    yield notice
  finally:
    _watching = None
    signal.set_wakeup_fd(woken)
    for number, handler in handlers.items():
      signal.signal(number, handler)
    writer.close()
    watcher.join()
    reader.close()


def _listen(reader: socket.socket, notice: Notice) -> None:
  while numbers := reader.recv(64):
    for number in numbers:
      if number in _SIGNALS:
        notice._heard(number)


def _cluster_listener() -> Callable[[int], None] | None:
  """What JAX has hung onto SIGTERM, which `signal.signal` will replace.

  JAX's service agrees on the step after which all processes stop; its handler
  only sets a flag.
  """
  libc = ctypes.CDLL(None)
  libc.signal.restype = ctypes.c_void_p
  libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
  found = libc.signal(signal.SIGTERM, None)  # There is no way only to look.
  libc.signal(signal.SIGTERM, found)
  if found in (None, 1):  # SIG_DFL, SIG_IGN: the service is switched off.
    return None
  return ctypes.CFUNCTYPE(None, ctypes.c_int)(found)


def _leave(sentence: str, code: int) -> None:
  print(sentence, file=sys.stderr, flush=True)
  sys.stdout.flush()
  # Not sys.exit: only the main thread could, and it does not listen.
  os._exit(code)
