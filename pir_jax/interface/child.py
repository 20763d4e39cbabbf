"""Runs a command for as long as standard input stays open.

`python -m pir_jax.interface.child GRACE COMMAND...`: whoever started it ends
the command by closing the pipe, and so does the end of that process, however
it comes. The command gets Ctrl-C's signal, GRACE seconds to save what it has,
and is killed after that with all that it started.
"""

import os
import signal
import subprocess
import sys
import threading


def main(arguments: list[str]) -> int:
  """Runs the command; returns its exit code, 128 + the signal of a killed one.

  Args:
    arguments: seconds of grace, and the command.
  """
  grace, *command = arguments
  # Whatever starts in the background of a shell would ignore it.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  process = subprocess.Popen(
    command, stdin=subprocess.DEVNULL, start_new_session=True
  )
  watch = threading.Thread(
    target=_end_with_the_pipe, args=(process, float(grace)), daemon=True
  )
  watch.start()
  code = process.wait()
  _kill_group(process)
  return code if code >= 0 else 128 - code


def _end_with_the_pipe(process: subprocess.Popen, grace: float) -> None:
  while os.read(0, 1):
    pass
  process.send_signal(signal.SIGINT)
  try:
    process.wait(grace)
  except subprocess.TimeoutExpired:
    _kill_group(process)


def _kill_group(process: subprocess.Popen) -> None:
  """Kills the command, and what it left behind."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:  # Nothing is left.
    pass


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
