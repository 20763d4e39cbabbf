"""A command lives no longer than the pipe that it hangs on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest


def start(code, grace=0.3):
  line = [sys.executable, "-m", "pir_jax.interface.child", str(grace)]
  return subprocess.Popen(
    [*line, sys.executable, "-S", "-c", code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def is_alive(pid):
  try:
    # A zombie that nobody waits for is dead, too.
    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
  except OSError:
    return False
  return state.split()[0] != "Z"


def gone(pid, seconds=5.0):
  end = time.monotonic() + seconds
  while is_alive(pid) and time.monotonic() < end:
    time.sleep(0.01)
  return not is_alive(pid)


def test_exit_code_and_output_are_the_command_s():
  with start("print('here'); raise SystemExit(7)") as process:
    assert process.stdout.read() == "here\n"
    assert process.wait() == 7


def test_a_closed_pipe_is_ctrl_c_even_where_that_is_ignored():
  code = (
    "import time\ntry:\n  print('ready', flush=True); time.sleep(60)\n"
    "except KeyboardInterrupt:\n  print('saved')"
  )
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    process = start(code, grace=20)
  finally:
    signal.signal(signal.SIGINT, before)
  with process:
    assert process.stdout.readline() == "ready\n"
    process.stdin.close()
    assert process.stdout.read() == "saved\n"
    assert process.wait() == 0


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_does_not_listen_is_killed_with_all_that_it_started(how):
  code = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "other = os.fork()\n"
    "if other: print(os.getpid(), other, flush=True)\n"
    "time.sleep(60)"
  )
  if how == "closed":
    process = start(code)
    pids = process.stdout.readline().split()
    process.stdin.close()
    assert process.wait() == 128 + signal.SIGKILL
  else:
    # Whoever holds the pipe is killed, and can clean nothing up.
    holder = subprocess.Popen(
      [
        sys.executable,
        "-c",
        "import subprocess, sys, time\n"
        "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n"
        "time.sleep(60)",
        *(sys.executable, "-m", "pir_jax.interface.child", "0.3"),
        *(sys.executable, "-S", "-c", code),
      ],
      stdout=subprocess.PIPE,
      text=True,
    )
    pids = holder.stdout.readline().split()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
  assert all(gone(pid) for pid in pids)
