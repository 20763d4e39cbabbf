"""Notices: heard in any state, given once, and never after they are over."""

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
    assert not notice.given(1) and not notice.pending


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_is_given_at_the_next_step(number, code):
  before = signal.getsignal(number)
  with preemption.watch() as notice:
    assert not notice.given(1)
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # As launchers do: to process and group.
    until = time.monotonic() + 5
    while not notice.given(2) and time.monotonic() < until:
      time.sleep(0.01)
    assert notice.given(2)
    error = notice.preempted(2, pathlib.Path("run"))
  assert error.code == code
  assert str(error).startswith("stopped: step 2 is saved in run;")
  assert signal.getsignal(number) == before
  with preemption.watch() as another:
    assert not another.given(3)


def test_an_inner_watch_hears_what_the_outer_one_does():
  with preemption.watch() as outer, preemption.watch() as inner:
    assert inner is outer
  with preemption.watch() as later:
    assert later is not outer


def test_ctrl_c_before_the_first_step_is_an_exception():
  with pytest.raises(KeyboardInterrupt), preemption.watch():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


_STUCK = """
import hashlib, sys, time
from pir_jax.runtime import preemption
with preemption.watch() as notice:
  if sys.argv[1] == "begun":
    notice.given(1)
  print("ready", flush=True)
  # Like a compiler: no Python for minutes, and deaf to signals.
  hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def _stuck(word):
  process = subprocess.Popen(
    [sys.executable, "-c", _STUCK, word],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  return process


def test_before_the_first_step_nothing_holds_it():
  process = _stuck("idle")
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=10)
  assert process.returncode == 0
  assert "stopped before the first step" in said


def test_a_second_signal_stops_at_once():
  process = _stuck("begun")
  process.send_signal(signal.SIGTERM)
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(timeout=preemption.ECHO + 0.5)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=10)
  assert process.returncode == 128 + signal.SIGTERM
  assert "stopped at once" in said
