"""The command as a user runs it: a table, or one sentence."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENT = """
from pir_jax import runs
from pir_jax.models import generator, renderer
from pir_jax.runtime import loop
from pir_jax.stages import triplane


def get_config(variant=""):
  model = generator.Config(
    w_size=8,
    channel_base=64,
    channel_max=8,
    constant_side=8,
    plane_resolution=16,
    plane_channels=4,
    feature_resolution=8,
    resolution=16,
    sr_channels=(4, 4),
    renderer=renderer.Config(num_coarse=4, num_fine=4, hidden_size=8),
  )
  return runs.Experiment(
    stage=triplane.Config(model=model, perceptual_taps=1),
    loop=loop.Config(num_steps=1),
  )
"""
ROWS = [
  "mapping",
  "planes",
  "rays and coarse points",
  "plane lookup, coarse",
  "decoder, coarse",
  "importance sampling",
  "lookup and decoder, fine",
  "merge and compositing",
  "renderer, both passes",
  "upsampler",
  "whole without super-resolution",
  "whole frame",
]
NOT_COUNTED = {"rays and coarse points", "importance sampling"}
WIDTH = max(map(len, ROWS))


def run(*arguments):
  """Exit code, lines of the answer, lines of error."""
  result = subprocess.run(
    [sys.executable, "-m", "pir_jax.benchmark", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    check=False,
  )
  return (
    result.returncode,
    result.stdout.splitlines(),
    [s for s in result.stderr.splitlines() if not s.startswith(("W0", "I0"))],
  )


def test_the_table_has_every_row_in_the_order_of_the_way(tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(EXPERIMENT)
  code, lines, errors = run(
    "triplane",
    f"--config={path}",
    "--batch=2",
    "--dtype=bfloat16",
    "--repeats=2",
    "--peak_tflops=0.1",
  )
  assert code == 0, errors
  assert lines[0].startswith("triplane on cpu")
  for said in ("CPU cores", "jax ", "bfloat16", "batch of 2", "2 repeats"):
    assert said in lines[0]
  table = {}
  for line in lines[2 : 2 + len(ROWS)]:
    table[line[:WIDTH].strip()] = line[WIDTH:].split()
  assert list(table) == ROWS
  for name, cells in table.items():
    median, least, gflop, written, rate, size, unit, seconds, share = cells
    assert 0 < float(least) <= float(median), name
    assert float(size) > 0 and unit.endswith("B"), name
    assert float(seconds) >= 0 and float(written) > 0, name
    if name in NOT_COUNTED:
      assert gflop == rate == share == "-", name
    else:
      # GFLOP over seconds; three digits of each are printed.
      assert float(rate) > 0, name
      expected = float(gflop) / float(median) * 1e3
      assert abs(float(rate) / expected - 1) < 0.1, name
  assert any("GFLOP: " in line for line in lines)
  assert lines[-1].startswith("whole frame: ")


@pytest.mark.slow
def test_training_adds_a_gradient_and_a_step(tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(EXPERIMENT)
  code, lines, errors = run(
    "triplane", f"--config={path}", "--repeats=1", "--training"
  )
  assert code == 0, errors
  frame, gradient, step = (
    line[WIDTH:].split() for line in lines[1 + len(ROWS) : 4 + len(ROWS)]
  )
  assert float(gradient[2]) == pytest.approx(3 * float(frame[2]), rel=1e-3)
  assert float(step[0]) > 0 and step[2] == "-" and float(step[3]) > 0
  assert lines[-1].startswith("training step: ")


def test_what_is_not_a_topic_is_told_in_one_sentence(tmp_path):
  for arguments, says in [
    (["speech"], "'speech' is no topic: say triplane."),
    (
      ["triplane", "--config=experiments/expression.py:demo"],
      "no tri-plane's experiment",
    ),
  ]:
    code, lines, errors = run(*arguments)
    assert (code, lines, len(errors)) == (1, [], 1), errors
    assert says in errors[0]
