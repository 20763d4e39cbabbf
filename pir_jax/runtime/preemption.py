"""Preemption: SIGTERM or Ctrl-C stops training after a checkpoint is saved.

In a cluster jax's preemption service receives SIGTERM and makes all processes
stop after the same step.
"""

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

# Launchers often send a signal to a process and to its group: one notice.
ECHO_SECONDS = 1.0


class Preempted(Exception):
  """Training was asked to stop, and stopped after saving.

  Attributes:
    step: the one saved.
    code: to exit with: 0 after SIGTERM, 130 after Ctrl-C.
  """

  def __init__(self, step: int, workdir: pathlib.Path, code: int = 0):
    super().__init__(
      f"stopped: step {step} is saved in {workdir}; run the same command again "
      "to continue."
    )
    self.step = step
    self.code = code


class Notice:
  """Whether training must stop.

  Attributes:
    signal: the first one that this process received; None before any.
  """

  def __init__(self, signals: tuple[int, ...] = ()):
    """Receives nothing before `start`; see `watch`."""
    self.signal: int | None = None
    self._signals = signals
    self._received_at = 0.0

  def start(self) -> None:
    """Receives signals from now on: there is a step worth saving."""
    for number in self._signals:
      signal.signal(number, self._receive)

  def should_stop(self, step: int) -> bool:
    """Returns whether to save and stop now; called after every step.

    In a cluster it becomes true after the same step on all processes, one or
    two steps after any of them received a signal.

    Args:
      step: optimiser steps done.
    """
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.signal is not None

  def preempted(self, step: int, workdir: pathlib.Path) -> Preempted:
    """Returns what to raise when `step` is saved."""
    code = 130 if self.signal == signal.SIGINT else 0
    return Preempted(step, workdir, code)

  def _receive(self, number: int, frame: Any) -> None:
    del frame
    now = time.monotonic()
    if self.signal is None:
      self.signal, self._received_at = number, now
      if jax.process_count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)  # To jax's preemption service.
    elif now - self._received_at > ECHO_SECONDS:
      raise KeyboardInterrupt  # A second request does not wait for the save.


@contextlib.contextmanager
def watch() -> Iterator[Notice]:
  """Takes SIGTERM and Ctrl-C as notices, once the notice is started.

  Until then there is nothing to save: SIGTERM kills the process, even while it
  compiles, and Ctrl-C is a KeyboardInterrupt. Signals are received only in the
  main thread. In a cluster jax.distributed.initialize comes first.
  """
  if threading.current_thread() is not threading.main_thread():
    yield Notice()
    return
  # In a cluster jax has a handler of its own on SIGTERM.
  alone = jax.process_count() == 1
  signals = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
  before = {number: signal.getsignal(number) for number in signals}
  if alone:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  try:
    yield Notice(signals)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
