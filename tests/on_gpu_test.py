"""The script for an accelerator keeps its time, and goes its whole way."""

import importlib
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from pir_jax.preparation import packaged_clip

ROOT = pathlib.Path(__file__).parents[1]
TINY = """
from tests import small_experiments


def get_config(variant=""):
  experiment = small_experiments.small("{name}")
  experiment.loop.num_steps = {steps}
  return experiment
"""


@pytest.fixture(scope="module")
def on_gpu():
  # Its flags have the names of other commands' here.
  with pytest.MonkeyPatch.context() as patch:
    for kind in ("string", "float", "list"):
      patch.setattr(flags, f"DEFINE_{kind}", lambda *unused: None)
    return importlib.import_module("experiments.on_gpu")


def test_the_plan_trains_measures_and_times_in_order(on_gpu, tmp_path):
  tasks = on_gpu.plan("data", tmp_path, "small", ["1", "8"])
  names = [task.name for task in tasks]
  stages = ["expression", "triplane", "inpainting"]
  assert names[:4] == [*(f"train {s}" for s in stages), "held-out frames"]
  assert names[4:] == [
    f"{dtype}, batch {n}" for dtype in ("bfloat16", "float32") for n in (1, 8)
  ]
  assert any("inpainting.py:small" in x for x in tasks[-1].arguments)


def test_a_task_is_stopped_in_time_and_a_failure_is_named(on_gpu, tmp_path):
  def outcome(script, seconds):
    task = on_gpu.Task("train x", 1.0, ("-c", script))
    return on_gpu.run(task, seconds, tmp_path / "train-x.log")

  assert outcome("print('12 s/step  3 examples/s')", 60) == "done"
  text = on_gpu.section(tmp_path, {"train x": "done"})
  assert "12 s/step" in text
  assert outcome("import time; time.sleep(60)", 0.5) == "stopped"
  assert outcome("raise SystemExit('no such file')", 60) == "failed (1)"
  assert "no such file" in on_gpu.section(tmp_path, {"train x": "failed (1)"})


@pytest.mark.slow
def test_the_rehearsal_at_tiny_size(tmp_path):
  data = packaged_clip.prepared()
  for name in ("expression", "triplane", "inpainting"):
    text = TINY.format(name=name, steps=25)
    (tmp_path / f"{name}.py").write_text(text)
  command = (
    "import pathlib; from experiments import on_gpu; from pir_jax.runtime "
    f"import app; on_gpu._EXPERIMENTS = pathlib.Path({str(tmp_path)!r}); "
    "app.run(on_gpu.main)"
  )
  ran = subprocess.run(
    [
      *(sys.executable, "-c", command),
      f"--data={data}",
      f"--output={tmp_path / 'out'}",
      "--minutes=20",
      "--batches=1",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ran.returncode == 0, ran.stdout + ran.stderr
  section = (tmp_path / "out" / "section.md").read_text()
  assert section.count("s/step") == 3
  assert "ours, fitted expression" in section
  assert section.count("images a second") >= 2
  assert "failed" not in section
