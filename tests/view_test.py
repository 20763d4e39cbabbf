"""The command serves until Ctrl-C, and refuses in a sentence."""

import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("viser")

ROOT = pathlib.Path(__file__).parents[1]
# A small random network stands for a trained run.
CHILD = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
from pir_jax import view
from pir_jax.interface import opening
from pir_jax.inference import viewer as viewer_lib
from pir_jax.runtime import app
from tests.interface.small_face import MEAN, SPACE, network
import numpy as np
viewer = viewer_lib.Viewer(network(), SPACE, np.zeros(3, "f4"), MEAN)
viewer_lib.Viewer.open = lambda model, person: viewer
opening.clip_of = lambda model, person: None
sys.argv = ["view", "--model=somewhere", "--port=0"]
app.run(view.main)
"""


@pytest.mark.slow
def test_it_serves_until_ctrl_c():
  child = subprocess.Popen(
    [sys.executable, "-c", CHILD],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    line = child.stdout.readline()
    assert line.startswith("the viewer is at http://127.0.0.1:"), line
    with urllib.request.urlopen(line.split()[4].rstrip(";")) as answer:
      assert answer.status == 200
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
  finally:
    child.kill()
  assert child.returncode == 0, errors
  assert output == "the viewer has ended.\n"
  assert not errors


def test_a_port_in_use_is_a_sentence_before_anything_is_opened(
  run_command, tmp_path
):
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    code, _, errors = run_command(
      "view", f"--model={tmp_path}", f"--port={port}"
    )
  assert code == 1 and len(errors) == 1, errors
  assert f"port {port}" in errors[0] and "in use" in errors[0]
