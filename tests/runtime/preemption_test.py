"""Notices: received at the next step, once, and only while watching."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pir_jax.runtime import preemption


def test_no_signal_is_no_notice():
  with preemption.watch() as notice:
    notice.start()
    assert not notice.should_stop(1) and notice.signal is None


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_stops_at_the_next_step(number, code):
  before = signal.getsignal(number)
  with preemption.watch() as notice:
    notice.start()
    assert not notice.should_stop(1)
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # As launchers do: to process and group.
    assert notice.should_stop(2)
    error = notice.preempted(2, pathlib.Path("run"))
  assert error.code == code
  assert str(error).startswith("stopped: step 2 is saved in run;")
  assert signal.getsignal(number) == before
  with preemption.watch() as another:
    another.start()
    assert not another.should_stop(3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_the_save(number, monkeypatch):
  monkeypatch.setattr(preemption, "ECHO_SECONDS", 0.0)
  with pytest.raises(KeyboardInterrupt), preemption.watch() as notice:
    notice.start()
    os.kill(os.getpid(), number)
    assert notice.should_stop(1)
    time.sleep(0.001)
    os.kill(os.getpid(), number)
    time.sleep(5)


def test_ctrl_c_before_the_first_step_is_an_exception():
  # Shells make processes in the background ignore it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt), preemption.watch():
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(5)
  finally:
    signal.signal(signal.SIGINT, before)


_COMPILING = """
import hashlib
from pir_jax.runtime import preemption
with preemption.watch() as notice:
  print("ready", flush=True)
  # Like a compiler: no Python for minutes, and deaf to Python's handlers.
  hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_sigterm_before_the_first_step_ends_a_process_that_compiles():
  process = subprocess.Popen(
    [sys.executable, "-c", _COMPILING], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=10) == -signal.SIGTERM
