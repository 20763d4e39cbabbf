"""Sound that comes late is measured by what the lips would do, and moved."""

import dataclasses
import types

import numpy as np
import pytest

from pir_jax.data import records, synthetic
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.runs import frozen_networks, run, speech_shift
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import checkpoint, loop
from pir_jax.stages import expression, triplane


@pytest.fixture
def clip(tmp_path, monkeypatch):
  made = synthetic.write_synthetic(tmp_path / "me", num_frames=110, side=16)
  monkeypatch.setattr(
    frozen_networks, "lip_basis", lambda space: np.eye(space.expression_size)
  )
  del made
  return Clip.open(tmp_path / "me")


def knowing(clip, late):
  """A run that predicts the clip's own lips, `late` ticks after they move."""
  (speech,) = clip.speech()

  class Stage:
    def predict(self, state, waveform, identity, stats):
      del state, identity, stats
      num = len(waveform) // records.SAMPLES_PER_TICK
      return np.roll(speech.expression, late, axis=0)[:num]

  return run.Run(None, Stage(), None, Dataset([clip]).space, 1, [])


@pytest.mark.parametrize("late", [-8, -2, 0, 3])
def test_a_shift_is_measured_on_the_training_part(clip, late):
  shift, correlation = speech_shift.measure(clip, knowing(clip, late))
  assert shift == late and correlation > 0.95


def _experiment(**changes):
  config = expression.Config(relative=True, init_from="base", **changes)
  return Experiment(
    stage=config, data=Data(path="x"), loop=loop.Config(num_steps=1)
  )


def test_only_an_adapted_stage_1_moves_sound(
  clip, tmp_path, monkeypatch, capsys
):
  data = Dataset([clip])
  monkeypatch.setattr(speech_shift, "open_run", lambda path: knowing(clip, 3))
  monkeypatch.setattr(speech_shift, "origin_of", lambda path, stage: path)
  (moved,) = speech_shift.in_step(_experiment(), data, tmp_path)
  assert moved.shift == 3
  assert "its sound comes 0.12 s late" in capsys.readouterr().out
  experiment = _experiment()
  for other in (
    dataclasses.replace(experiment.stage, relative=False),
    dataclasses.replace(experiment.stage, init_from=""),
    triplane.Config(init_from="base"),
  ):
    made = dataclasses.replace(experiment, stage=other)
    assert speech_shift.in_step(made, data, tmp_path) is data
  listed = dataclasses.replace(
    experiment, data=Data(path="x", speakers="people.tsv")
  )
  assert speech_shift.in_step(listed, data, tmp_path) is data


def test_lips_that_follow_at_no_shift_leave_the_sound_alone(
  clip, tmp_path, monkeypatch, capsys
):
  noise = np.random.default_rng(0).normal(size=(200, 9))
  stage = types.SimpleNamespace(
    predict=lambda state, wave, identity, stats: noise[
      : len(wave) // records.SAMPLES_PER_TICK, : len(stats.mean)
    ]
  )
  deaf = run.Run(None, stage, None, Dataset([clip]).space, 1, [])
  monkeypatch.setattr(speech_shift, "open_run", lambda path: deaf)
  monkeypatch.setattr(speech_shift, "origin_of", lambda path, stage: path)
  monkeypatch.setattr(speech_shift, "LEAST", 0.99)
  (same,) = speech_shift.in_step(_experiment(), Dataset([clip]), tmp_path)
  assert same.shift == 0 and "at no shift" in capsys.readouterr().out


def test_a_run_that_goes_on_keeps_its_shifts(clip, tmp_path, monkeypatch):
  people = Dataset([dataclasses.replace(clip, shift=-2)]).people
  checkpoint.write_record(tmp_path / "run", {"people": people})
  monkeypatch.setattr(speech_shift, "has_begun", lambda workdir: True)
  data = Dataset([clip])
  (kept,) = speech_shift.in_step(_experiment(), data, tmp_path / "run")
  assert kept.shift == -2
  (other,) = speech_shift.recorded(data, [people[0] | {"sha256": "another"}])
  assert other.shift == 0
