"""A run goes on as it began, and what it was made from is written down."""

import dataclasses
import json
import shutil

import pytest

from pir_jax.data import synthetic
from pir_jax.data.dataset import Dataset
from pir_jax.models import faceformer
from pir_jax.runs import run_record
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import checkpoint, loop
from pir_jax.stages import expression
from pir_jax.types import InputError


class Stage:
  """As much of a stage as the record needs."""

  name = "expression"
  config = expression.Config()

  def __init__(self, space):
    self.space = space


@pytest.fixture
def made(tmp_path):
  """A run directory, and what it was begun with."""
  synthetic.write_synthetic(tmp_path / "data", num_frames=22)
  experiment = Experiment(
    stage=expression.Config(model=faceformer.Config(width=128)),
    data=Data(path=str(tmp_path / "data")),
    loop=loop.Config(num_steps=1),
  )
  data = Dataset.open(experiment.data.paths)
  run_record.write(tmp_path / "run", experiment, data, Stage(data.space))
  (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
  return tmp_path / "run", experiment, data


def test_the_record_tells_what_the_run_is_made_from(made):
  record = checkpoint.read_record(made[0])
  assert record["seed"] == 0
  assert {"pir_jax", "jax", "jaxlib", "flax", "grain"} <= set(
    record["versions"]
  )
  assert record["code"] == run_record.code()
  assert record["machine"]["num_devices"] == 8
  (clip,) = record["data"]
  assert clip["name"] == "data" and len(clip["manifest"]) == 64


def test_fields_that_matter_are_named_with_both_values(made):
  workdir, experiment, data = made
  model = dataclasses.replace(experiment.stage.model, width=256)
  other = dataclasses.replace(
    experiment, stage=dataclasses.replace(experiment.stage, model=model), seed=1
  )
  written = (workdir / "run.json").read_bytes()
  with pytest.raises(InputError) as error:
    run_record.check(workdir, other, data, data.space)
  assert "stage.model.width: 128 -> 256; seed: 0 -> 1" in str(error.value)
  assert (workdir / "run.json").read_bytes() == written


def test_how_long_and_where_may_change(made, tmp_path):
  workdir, experiment, _ = made
  shutil.move(tmp_path / "data", tmp_path / "moved")
  other = dataclasses.replace(
    experiment,
    loop=loop.Config(num_steps=5, keep=9),
    data=dataclasses.replace(experiment.data, path=str(tmp_path / "moved")),
  )
  moved = Dataset.open(other.data.paths)
  run_record.check(workdir, other, moved, moved.space)


@pytest.mark.parametrize("field", ["batch_size", "num_frames", "speeds"])
def test_what_changes_the_batches_may_not(field):
  old = {"data": {"path": "a", field: (1.0,)}, "loop": {"num_steps": 1}}
  new = {"data": {"path": "b", field: (2.0,)}, "loop": {"num_steps": 2}}
  assert run_record.changes(old, new) == [f"data.{field}: [1.0] -> [2.0]"]
  # Written down and read back, it is what it was.
  assert not run_record.changes(json.loads(json.dumps(old)), old)


def test_a_field_newer_than_the_run_has_its_default(made):
  workdir, experiment, data = made
  record = checkpoint.read_record(workdir)
  del record["config"]["stage"]["model"]["width"]
  checkpoint.write_record(workdir, record)
  with pytest.raises(InputError, match=r"stage.model.width: 1024 -> 128\)"):
    run_record.check(workdir, experiment, data, data.space)


def test_data_that_have_changed_are_named(made, tmp_path):
  workdir, experiment, _ = made
  path = tmp_path / "data" / "landmarks.npy"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  data = Dataset.open(experiment.data.paths)
  with pytest.raises(InputError, match=r"on other data than this \(data\)"):
    run_record.check(workdir, experiment, data, data.space)


def test_another_stage_is_refused(made):
  workdir, experiment, data = made
  record = checkpoint.read_record(workdir)
  checkpoint.write_record(workdir, {**record, "stage": "triplane"})
  with pytest.raises(InputError, match="stage triplane, not expression"):
    run_record.check(workdir, experiment, data, data.space)


def test_a_run_that_saved_nothing_is_begun_anew(made):
  workdir, experiment, data = made
  shutil.rmtree(workdir / "checkpoints")
  other = dataclasses.replace(experiment, seed=7)
  run_record.check(workdir, other, data, data.space)
  run_record.write(workdir, other, data, Stage(data.space))
  assert checkpoint.read_record(workdir)["seed"] == 7
