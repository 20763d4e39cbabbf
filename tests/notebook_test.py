"""experiments/first_steps.ipynb runs from its first cell to its last."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "experiments" / "first_steps.ipynb"


def code_cells():
  cells = json.loads(NOTEBOOK.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs_and_is_python():
  for cell in code_cells():
    assert not cell["outputs"] and cell["execution_count"] is None
    ast.parse("".join(cell["source"]))


@pytest.mark.slow
def test_it_runs_on_the_packaged_clip_with_two_steps(tmp_path):
  pytest.importorskip("nbmake")
  environment = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PIR_JAX_STEPS": "2",
    "PIR_JAX_RUN": str(tmp_path),
  }
  for name in ("PIR_JAX_VIDEO", "PIR_JAX_SPEECH"):
    environment.pop(name, None)
  before = NOTEBOOK.read_bytes()
  done = subprocess.run(
    [
      *(sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=1500"),
      *("-q", "-p", "no:cacheprovider", str(NOTEBOOK)),
    ],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout[-5000:]
  assert (tmp_path / "out.mp4").stat().st_size > 10_000
  assert NOTEBOOK.read_bytes() == before
