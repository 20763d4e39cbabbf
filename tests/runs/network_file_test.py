"""One network in a file: whole, without a place of the machine, refused if not.

That a person's three networks come back to the bit is tested in api_test.py.
"""

import dataclasses

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from pir_jax.data import synthetic
from pir_jax.data.dataset import Dataset
from pir_jax.inference import exporter
from pir_jax.models import faceformer, wav2vec2
from pir_jax.runs import frozen_networks, network_file, run_record
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runs.run import make_stage, open_run
from pir_jax.runtime import checkpoint, loop, sharding
from pir_jax.stages import expression, train_state
from pir_jax.types import InputError


class Iterator:
  """Data that has no state."""

  def get_state(self):
    return {}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
  """A run of stage 1 that also trains a small wav2vec 2.0."""
  folder = tmp_path_factory.mktemp("tuned")
  synthetic.write_synthetic(folder / "data", num_frames=66)
  encoder = wav2vec2.Wav2Vec2(
    wav2vec2.Config(
      conv_sizes=(4,) * 7,
      width=12,
      num_layers=1,
      num_heads=2,
      ffn=16,
      position_kernel=4,
      position_groups=2,
    ),
    rngs=nnx.Rngs(0),
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(frozen_networks, "speech_encoder", lambda config: encoder)
    experiment = Experiment(
      stage=expression.Config(
        model=faceformer.Config(width=16, ffn=16, num_heads=2, context=10),
        encoder_path=str(folder / "my wav2vec"),
        window=10,
        margin=2,
      ),
      data=Data(path=str(folder / "data"), num_frames=10),
      loop=loop.Config(num_steps=1),
    )
    data = Dataset.open(folder / "data")
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    stage = make_stage(experiment, data.space, folder / "run", mesh)
    run_record.write(folder / "run", experiment, data, stage)
    checkpoints = checkpoint.Checkpoints(folder / "run")
    checkpoints.save(1, stage.init(jax.random.key(0)), Iterator(), wait=True)
    checkpoints.close()
    run = open_run(folder / "run")
    network_file.write_network(
      folder / "expression.safetensors",
      exporter._record(folder / "run", run),
      train_state.learnt(run.state),
    )
  return folder, run


def test_a_tuned_encoder_needs_no_file_of_its_own(run_folder):
  folder, run = run_folder
  other = open_run(folder / "expression.safetensors")
  chex.assert_trees_all_equal(
    train_state.learnt(other.state), train_state.learnt(run.state)
  )
  wave = np.float32(np.random.default_rng(0).normal(size=640 * 12))
  identity = np.zeros(run.space.identity_size, np.float32)
  np.testing.assert_array_equal(
    run.stage.predict(run.state, wave, identity),
    other.stage.predict(other.state, wave, identity),
  )


def test_no_place_of_the_machine_is_in_the_file(run_folder):
  folder, _ = run_folder
  content = (folder / "expression.safetensors").read_bytes()
  assert str(folder).encode() not in content and b"my wav2vec" not in content


def test_what_is_no_export_is_refused(run_folder, tmp_path):
  folder, _ = run_folder
  path = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"x": np.zeros(2, np.float32)}, path)
  assert not network_file.is_one(path)
  with pytest.raises(InputError, match="holds no network of pir_jax"):
    open_run(path)
  cut = tmp_path / "cut.safetensors"
  cut.write_bytes((folder / "expression.safetensors").read_bytes()[:-10])
  with pytest.raises(InputError, match="cannot be read"):
    open_run(cut)
  with pytest.raises(InputError, match="cannot be read"):
    open_run(tmp_path / "none.safetensors")


def test_a_frozen_encoder_of_the_users_own_is_refused(run_folder):
  folder, run = run_folder
  config = dataclasses.replace(
    run.experiment.stage, encoder="whisper", encoder_path="mine.bin"
  )
  run = run._replace(
    experiment=dataclasses.replace(run.experiment, stage=config),
    stage=type("Stage", (), {"tuned": False}),
  )
  with pytest.raises(InputError, match="needs mine.bin"):
    exporter._record(folder / "run", run)
