"""The command as a user runs it: a table, or one sentence."""

import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENT = """
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.models import renderer, triplane_generator
from pir_jax.runtime import loop
from pir_jax.stages import triplane


def get_config(variant=""):
  model = triplane_generator.Config(
    w_size=8,
    map_depth=1,
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
  return Experiment(
    stage=triplane.Config(model=model, perceptual_layers=1),
    loop=loop.Config(num_steps=1),
  )
"""
INPAINTING = """
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.models import inpainting as network
from pir_jax.models import patch_discriminator
from pir_jax.runtime import loop
from pir_jax.stages import inpainting


def get_config(variant=""):
  return Experiment(
    stage=inpainting.Config(
      model=network.Config(channels=4, num_downsamples=NUM),
      discriminator=patch_discriminator.Config(channels=4, max_channels=8),
      perceptual_layers=1,
    ),
    loop=loop.Config(num_steps=1),
  )
"""
EXPRESSION = """
from pir_jax.models import faceformer
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop
from pir_jax.stages import expression


def get_config(variant=""):
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(width=16, ffn=16, num_heads=2),
      encoder="whisper",
      encoder_path="",
      layer_index=1,
      window=12,
      margin=2,
    ),
    data=Data(num_frames=8),
    loop=loop.Config(num_steps=1),
  )
"""
INPAINTING_ROWS = [
  "coarse: half size, 7x7",
  "coarse: downsampling",
  "coarse: blocks",
  "coarse: upsampling",
  "fine: 7x7",
  "fine: downsampling, sum",
  "fine: blocks",
  "fine: upsampling",
  "fine: 7x7 to the image",
  "whole generator",
  "feature image",
  "network frame",
]
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
# A gather: neither matrix product nor convolution.
NOT_COUNTED = {"plane lookup, coarse"}
WIDTH = 33


@pytest.fixture
def run(run_command):
  return functools.partial(run_command, "benchmark")


@pytest.mark.slow  # profiling/triplane_test runs each part.
def test_the_table_has_every_row_in_the_order_of_the_way(run, tmp_path):
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
  for word in ("CPU cores", "jax ", "bfloat16", "batch of 2", "2 repeats"):
    assert word in lines[0]
  table = {}
  for line in lines[3 : 3 + len(ROWS)]:
    table[line[:WIDTH].strip()] = line[WIDTH:].split()
  assert list(table) == ROWS
  for name, cells in table.items():
    median, least, gflop, speed, size, unit, seconds, share = cells
    assert 0 < float(least) <= float(median), name
    assert float(size) > 0 and unit.endswith("B"), name
    assert float(seconds) >= 0, name
    if name in NOT_COUNTED:
      assert gflop == speed == share == "-", name
    else:
      # GFLOP over seconds; three digits of each are printed.
      assert float(speed) > 0, name
      expected = float(gflop) / float(median) * 1e3
      assert abs(float(speed) / expected - 1) < 0.1, name
  assert any("GFLOP: " in line for line in lines)
  assert lines[-1].startswith("whole frame: ")


def _inpainting_experiment(folder, num_downsamples):
  """Files of both picture stages, beside each other; the one to be named."""
  triplane = EXPERIMENT.replace(
    "resolution=16,\n    sr", "resolution=32,\n    sr"
  )
  (folder / "triplane.py").write_text(triplane)
  path = folder / "inpainting.py"
  path.write_text(INPAINTING.replace("NUM", str(num_downsamples)))
  return path


@pytest.mark.slow
def test_inpainting_takes_the_triplane_beside_it(run, tmp_path):
  path = _inpainting_experiment(tmp_path, num_downsamples=1)
  code, lines, errors = run(
    "inpainting", f"--config={path}", "--repeats=1", "--nopipeline"
  )
  assert code == 0, errors
  assert lines[0].startswith("inpainting on cpu")
  table = {}
  for line in lines[3 : 3 + len(INPAINTING_ROWS)]:
    table[line[:WIDTH].strip()] = line[WIDTH:].split()
  assert list(table) == INPAINTING_ROWS
  for name, (median, _, gflop, *_) in table.items():
    assert float(median) > 0 and float(gflop) > 0, name
  named = [line.split(":")[0] for line in lines if "images a second" in line]
  assert named == INPAINTING_ROWS[-3:]


@pytest.mark.slow
def test_training_adds_a_gradient_and_a_step(run, tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(EXPERIMENT)
  code, lines, errors = run(
    "triplane", f"--config={path}", "--repeats=1", "--training"
  )
  assert code == 0, errors
  frame, gradient, step = (
    line[WIDTH:].split() for line in lines[2 + len(ROWS) : 5 + len(ROWS)]
  )
  # A gradient by all parameters: the products of the frame and about twice as
  # many, but for the conditions' own.
  assert 2 * float(frame[2]) < float(gradient[2]) < 4 * float(frame[2])
  assert float(step[0]) > 0 and float(step[2]) > float(gradient[2]) / 2
  assert lines[-1].startswith("training step: ")


@pytest.mark.slow
def test_speech_has_its_rows_and_a_training_step(run, tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(EXPRESSION)
  code, lines, errors = run(
    "expression", f"--config={path}", "--repeats=1", "--training"
  )
  assert code == 0, errors
  assert lines[0].startswith("expression on cpu")
  table = {line[:WIDTH].strip(): line[WIDTH:].split() for line in lines[3:8]}
  assert list(table) == [
    "speech encoder",
    "decoder, frame by frame",
    "whole window",
    "forward and backward",
    "training step",
  ]
  gflop = {name: float(cells[2]) for name, cells in table.items()}
  parts = gflop["speech encoder"] + gflop["decoder, frame by frame"]
  assert gflop["whole window"] == pytest.approx(parts, rel=0.01)
  # The encoder is frozen: only the decoder's products come again.
  assert gflop["forward and backward"] > gflop["whole window"]


@pytest.mark.slow
def test_training_of_inpainting_and_the_whole_way(run, tmp_path):
  path = _inpainting_experiment(tmp_path, num_downsamples=1)
  (tmp_path / "expression.py").write_text(
    (ROOT / "experiments" / "expression.py")
    .read_text()
    .replace('{"demo": demo', '{"": demo, "demo": demo')
  )
  code, lines, errors = run(
    "inpainting", f"--config={path}", "--repeats=1", "--training"
  )
  assert code == 0, errors
  names = [line[:WIDTH].strip() for line in lines]
  assert names[15:17] == ["forward and backward", "training step"]
  start = names.index("reenactment, a frame")
  way = names[start + 1 :]
  assert way[0] == "decode" and way[-2] == "encode"
  assert way[-1].startswith("all ")
  times = [line[WIDTH:].split()[0] for line in lines[start + 1 :]]
  known = [float(time) for time in times if time != "-"]
  # Each is rounded to a hundredth of a millisecond.
  assert sum(known[:-1]) == pytest.approx(known[-1], abs=0.1)


def test_sizes_are_the_papers_or_the_config_s_and_must_fit(tmp_path):
  # The features are met at an eighth of the frame, and are a quarter of it.
  unfit = _inpainting_experiment(tmp_path, num_downsamples=2)
  # Another process: the flags' names are those of other commands.
  script = f"""
from absl import flags
from pir_jax import benchmark
from pir_jax.types import InputError

flags.FLAGS(["benchmark"])
renderer = benchmark._beside("triplane").stage.model
print(renderer.resolution, renderer.feature_resolution, renderer.plane_channels)
print(benchmark._experiment("inpainting").stage.model.num_global_blocks)
print(benchmark._beside("expression").stage.encoder)
for topic, config in [
  ("triplane", "experiments/expression.py:demo"),
  ("inpainting", {str(unfit)!r}),
]:
  flags.FLAGS(["benchmark", "--config=" + config])
  try:
    benchmark.main(topic)
  except InputError as error:
    print(error)
"""
  command = [sys.executable, "-c", script]
  result = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=True
  )
  lines = result.stdout.splitlines()
  assert lines[:3] == ["512 64 32", "4", "wav2vec2"]
  assert "is no experiment of triplane" in lines[3]
  assert "meets a feature image of" in lines[-1]
