"""The command as a user runs it: an answer, or one sentence."""

import functools
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENT = """
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.models import faceformer
from pir_jax.runtime import loop
from pir_jax.stages import expression


def get_config(variant=""):
  model = faceformer.Config(width=8, ffn=8, num_heads=2, dropout=0.0)
  return Experiment(
    stage=expression.Config(
      model=model, encoder="whisper", mode="teacher_forced"
    ),
    data=Data(batch_size=1, num_frames=2),
    loop=loop.Config(num_steps=1),
  )
"""


@pytest.fixture
def run(tmp_path, run_command):
  # An empty cache: were a file wanted, it would have to be fetched.
  cache = str(tmp_path / "cache")
  return functools.partial(run_command, "compile", PIR_JAX_CACHE=cache)


@pytest.mark.slow
def test_the_answer_names_networks_and_the_peak(run, tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(EXPERIMENT)
  code, lines, errors = run(f"--config={path}", "--config.data.batch_size=3")
  assert code == 0, errors
  assert lines[0].startswith("expression, a step of 3 examples on 1 x cpu")
  assert any("trained: decoder" in line for line in lines)
  assert any("frozen: encoder" in line for line in lines)
  assert any("at the peak" in line for line in lines)
  kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
  assert not kept, "a file was fetched"


def test_sizes_that_do_not_fit_and_wrong_files_are_errors():
  # One process for all: each would spend seconds on imports.
  script = """
from absl import flags
from pir_jax import compile
from pir_jax.types import InputError

inpainting = "--config=experiments/inpainting.py:demo"
for args in (
  [], [inpainting], [inpainting, "--triplane=experiments/expression.py:demo"]
):
  flags.FLAGS(["compile", *args])
  try:
    compile.main()
  except InputError as error:
    print("InputError:", error)
"""
  result = subprocess.run(
    [sys.executable, "-c", script],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  lines = [s for s in result.stdout.splitlines() if "InputError" in s]
  assert "Missing required flags: --config." in lines[0]
  assert "name the tri-plane that is rendered with --triplane" in lines[1]
  assert "another stage" in lines[2]


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is not None,
  reason="the TPU's compiler is installed",
)
def test_without_the_tpus_compiler_the_extra_is_named(run):
  # Of several slices each is compiled by a process of its own, which says so.
  code, _, errors = run(
    "--config=experiments/expression.py",
    "--topology=v5e:4x4,v5p:8x8x8",
  )
  assert code == 1 and len(errors) == 1
  assert "extra tpu-aot" in errors[0]
