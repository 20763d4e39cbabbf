"""A run goes with the run that it was trained on, and is opened as trained."""

import pathlib
import shutil
import types

import jax
import numpy as np
import pytest
from flax import nnx

from pir_jax import train
from pir_jax.data import dataset, synthetic
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.evaluation import expression as expression_report
from pir_jax.evaluation import held_out_frames, mask_leakage, reenactment
from pir_jax.models import faceformer, whisper
from pir_jax.runs import frozen_networks
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runs.run import check_generator, open_run
from pir_jax.runtime import checkpoint_integrity, loop
from pir_jax.stages import expression
from pir_jax.types import ConfigError, InputError

FOLDER = pathlib.Path("inpainting")
NUM_STEPS = 2


def _experiment(data, num_steps=NUM_STEPS, **changes):
  """Stage 1 as small as it goes."""
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(width=16, ffn=16, num_heads=2, context=10),
      # All frames of a window at once: half as long to compile.
      mode="teacher_forced",
      encoder="whisper",
      encoder_path="",
      window=10,
      margin=2,
      **changes,
    ),
    data=Data(path=str(data), batch_size=1, num_frames=10),
    loop=loop.Config(num_steps=num_steps, log_every=1, save_every=1),
  )


def _opened(patch):
  """Counts how often each manifest and each track is loaded."""
  calls = []
  for name in ("load_manifest", "load_track"):
    load = getattr(dataset, name)

    def count(folder, load=load, name=name):
      calls.append((name, pathlib.Path(folder)))
      return load(folder)

    patch.setattr(dataset, name, count)
  return calls


def _once(data):
  return [("load_manifest", data), ("load_track", data)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A clip, a run of two steps on it, and what was opened meanwhile."""
  folder = tmp_path_factory.mktemp("trained")
  synthetic.write_synthetic(folder / "data", num_frames=66)
  patch = pytest.MonkeyPatch()
  # Random weights: nothing is downloaded.
  patch.setattr(
    frozen_networks,
    "speech_encoder",
    lambda config: whisper.WhisperEncoder(
      whisper.Config(width=16, num_heads=2, num_layers=1, ffn=16),
      rngs=nnx.Rngs(0),
    ),
  )
  calls = _opened(patch)
  train.train(_experiment(folder / "data"), folder / "run")
  yield folder, sorted(calls)
  patch.undo()


@pytest.fixture
def run_folder(trained, tmp_path):
  """A copy of the run that a test may damage."""
  shutil.copytree(trained[0] / "run", tmp_path / "run")
  return tmp_path / "run"


@pytest.fixture
def hashed(monkeypatch):
  """Lists every file of a checkpoint whose bytes are hashed."""
  files = []
  whole = checkpoint_integrity._file_hash
  monkeypatch.setattr(
    checkpoint_integrity,
    "_file_hash",
    lambda path: files.append(path) or whole(path),
  )
  return files


def test_training_opens_a_clip_once(trained):
  folder, opened = trained
  assert opened == _once(folder / "data")


def test_a_run_is_opened_as_it_was_trained(trained):
  folder, _ = trained
  run, data = open_run(folder / "run"), Dataset.open(folder / "data")
  assert run.step == NUM_STEPS
  assert run.experiment == _experiment(folder / "data")
  assert run.people == data.people
  assert run.space.is_like(data.space)
  for name in ("expression_mean", "expression_scale"):
    np.testing.assert_array_equal(
      getattr(run.space, name), getattr(data.space, name)
    )
  fresh = run.stage.init(jax.random.key(run.experiment.seed))
  for name, net in run.state.nets.items():
    pairs = zip(
      jax.tree.leaves(net.params),
      jax.tree.leaves(fresh.nets[name].params),
      strict=True,
    )
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs), name


def test_reading_compares_sizes_and_resuming_compares_hashes(
  trained, run_folder, hashed
):
  assert open_run(run_folder).step == NUM_STEPS
  assert not hashed
  train.train(_experiment(trained[0] / "data"), run_folder)
  assert {"about.json"} < {path.name for path in hashed}
  assert all(path.is_relative_to(run_folder) for path in hashed)


def _newest(folder):
  return folder / "checkpoints" / str(checkpoint_integrity.steps(folder)[-1])


def test_a_change_within_a_file_is_seen_on_resuming(trained, run_folder, capfd):
  path = _newest(run_folder) / "about" / "about.json"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  assert open_run(run_folder).step == NUM_STEPS
  # The checkpoint before it is whole, and no step is left.
  train.train(_experiment(trained[0] / "data", num_steps=1), run_folder)
  assert "about.json has changed" in capfd.readouterr().err
  assert any((run_folder / "damaged").iterdir())


@pytest.mark.parametrize(
  "name, words",
  [
    ("about/about.json", "has 0 bytes instead of"),
    (checkpoint_integrity.FILE_LIST, "files.json cannot be read"),
  ],
)
def test_a_cut_file_is_seen_on_reading(run_folder, name, words, capfd):
  for step in checkpoint_integrity.steps(run_folder):
    (run_folder / "checkpoints" / str(step) / name).write_bytes(b"")
  with pytest.raises(InputError, match="every checkpoint of .* is damaged"):
    open_run(run_folder)
  assert words in capfd.readouterr().err
  assert not (run_folder / "damaged").exists()


def test_what_is_no_run_or_has_no_checkpoint_is_refused(run_folder, tmp_path):
  with pytest.raises(InputError, match="none"):
    open_run(tmp_path / "none")
  shutil.rmtree(run_folder / "checkpoints")
  with pytest.raises(InputError, match="has no checkpoint: train it first"):
    open_run(run_folder)


def test_other_data_and_another_config_are_refused_untouched(
  trained, run_folder, tmp_path
):
  synthetic.write_synthetic(tmp_path / "other", num_frames=66, seed=1)
  written = (run_folder / "run.json").read_bytes()
  with pytest.raises(InputError, match="on other data than this"):
    train.train(_experiment(tmp_path / "other"), run_folder)
  with pytest.raises(InputError, match="stage.gain: 0.0 -> 3.0"):
    train.train(_experiment(trained[0] / "data", gain=3.0), run_folder)
  assert (run_folder / "run.json").read_bytes() == written


@pytest.mark.parametrize(
  "changes", [{"margin": 5}, {"mode": "spoken"}, {"accumulate": 2}]
)
def test_a_wrong_size_is_refused_before_anything_is_written(
  trained, tmp_path, changes
):
  experiment = _experiment(trained[0] / "data")
  for name, value in changes.items():
    setattr(experiment.stage, name, value)
  kind = InputError if "accumulate" in changes else ConfigError
  with pytest.raises(kind, match=next(iter(changes))):
    train.train(experiment, tmp_path / "new")
  assert not (tmp_path / "new").exists()


def test_the_expression_report_opens_a_clip_and_the_run_once(
  trained, tmp_path, monkeypatch
):
  folder, _ = trained
  calls, runs = _opened(monkeypatch), []
  monkeypatch.setattr(
    expression_report,
    "open_run",
    lambda path: runs.append(path) or open_run(path),
  )
  row = expression_report.Measured(1.0, 2.0, 0.5)
  # The figures need a real head; what is opened does not.
  monkeypatch.setattr(
    expression_report, "measure", lambda *_: ({"ours": row}, {"a": np.ones(9)})
  )
  data = Dataset.open(folder / "data")
  expression_report.report(folder / "run", data, tmp_path / "report")
  assert sorted(calls) == _once(folder / "data")
  assert runs == [folder / "run"]


def test_the_reenactment_report_opens_a_clip_once(
  trained, tmp_path, monkeypatch
):
  folder, _ = trained
  data = Clip.open(folder / "data")

  class Person(reenactment.Person):
    people: list = []
    resolution = 16

    def __init__(self):
      self.space = Dataset([data]).space
      self.stats = data.expression_stats

    def with_identity(self, identity, stats):
      return self

    def in_step(self, clip):
      return clip

    def predict_expression(self, waveform):
      ticks = len(waveform) * 25 // 16000
      return np.zeros((ticks, self.space.expression_size), np.float32)

  calls = _opened(monkeypatch)
  # The figures need a real face; what is read for them does not.
  monkeypatch.setattr(
    mask_leakage.lips,
    "opening",
    lambda landmarks: np.sin(np.arange(len(landmarks)) / 3),
  )
  names = (held_out_frames.TARGET, held_out_frames.FROZEN)
  monkeypatch.setattr(
    held_out_frames,
    "rows",
    lambda held_out, person: dict.fromkeys(names, held_out.target),
  )
  monkeypatch.setattr(reenactment, "measure", lambda *_: {})
  monkeypatch.setattr(reenactment, "as_text", lambda *_: "")
  reenactment.evaluate(Person(), folder / "data", tmp_path / "report")
  assert sorted(calls) == _once(folder / "data")


def _stage(step, joint=False):
  return types.SimpleNamespace(
    triplane_step=step, config=types.SimpleNamespace(joint=joint)
  )


def test_stage_3_refuses_a_stage_2_that_was_trained_on():
  record = {"triplane_step": 100}
  check_generator(FOLDER, record, _stage(100))
  with pytest.raises(InputError, match="now at 200: train stage 3 again"):
    check_generator(FOLDER, record, _stage(200))


def test_what_holds_its_own_generator_or_needs_none_is_let_through():
  check_generator(FOLDER, {"triplane_step": 1}, _stage(2, joint=True))
  expression_stage = types.SimpleNamespace(config=types.SimpleNamespace())
  check_generator(FOLDER, {"triplane_step": None}, expression_stage)
  check_generator(FOLDER, {}, expression_stage)


def test_a_run_is_opened_on_a_device_of_its_own_process(trained, monkeypatch):
  """In a cluster `jax.devices` begins with those of process 0."""
  own = jax.devices()[3]
  monkeypatch.setattr(jax, "local_devices", lambda: [own])
  run = open_run(trained[0] / "run")
  leaf = jax.tree.leaves(run.state.nets["decoder"].params)[0]
  assert leaf.devices() == {own}
