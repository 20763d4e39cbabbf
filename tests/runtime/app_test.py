"""An interrupted command says that it goes on only where it does."""

import subprocess
import sys

_COMMAND = """
from pir_jax.runtime import app
def main():
  raise KeyboardInterrupt
for continues in (True, False):
  try:
    app.run(main, continues=continues)
  except SystemExit as error:
    assert error.code == 130
"""


def test_only_what_goes_on_says_that_it_does():
  done = subprocess.run(
    [sys.executable, "-c", _COMMAND],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  first, second = done.stderr.splitlines()
  assert first.startswith("stopped: the same command continues")
  assert second == "stopped."
