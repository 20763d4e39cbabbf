"""Commands end with a sentence; what was interrupted is not told more."""

import subprocess
import sys

import pytest

_COMMAND = """
import sys
from pir_jax.runtime import app
def main():
  raise KeyboardInterrupt
app.run(main, continues=sys.argv.pop() == "yes")
"""


@pytest.mark.parametrize("continues", ["yes", "no"])
def test_only_what_goes_on_says_that_it_does(continues):
  done = subprocess.run(
    [sys.executable, "-c", _COMMAND, continues],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 130
  assert done.stderr.startswith("stopped")
  assert ("the same command" in done.stderr) == (continues == "yes")
