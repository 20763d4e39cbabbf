import dataclasses
import math

import pytest

from experiments import base, expression, inpainting, triplane
from pir_jax import ranges
from pir_jax.runs.experiment import Data, experiment_of, name_of
from pir_jax.runtime import config_io
from pir_jax.types import ConfigError, InputError

FILES = {
  expression: ("", "demo", "small", "scratch"),
  triplane: ("", "demo", "small", "scratch"),
  inpainting: ("", "demo", "small", "scratch"),
  base: ("expression", "triplane", "inpainting_coarse", "inpainting"),
}
EXPERIMENTS = {
  f"{file.__name__}:{variant}": (file.get_config, variant)
  for file, variants in FILES.items()
  for variant in variants
}
WRONG = {
  int: (-1, -(10**30), 10**30, 1.5, math.nan, "1", None, True, (-1,)),
  float: (-math.inf, math.inf, math.nan, 1e300, "1", None, True, (math.nan,)),
}


def numbers(config, path=()):
  """Yields (path, config, field name, kind) of every number in a config."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from numbers(value, (*path, field.name))
    elif field.name in config.RANGES:
      kind = float if "float" in str(field.type) else int
      yield ".".join((*path, field.name)), config, field, kind


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_within_their_own_ranges(name):
  make, variant = EXPERIMENTS[name]
  ranges.check(make(variant))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_number_of_an_experiment_may_be_nonsense(name):
  make, variant = EXPERIMENTS[name]
  experiment = make(variant)
  places = list(numbers(experiment))
  assert len(places) > 40
  for path, config, field, kind in places:
    usual = getattr(config, field.name)
    for value in WRONG[kind]:
      if value is None and "None" in str(field.type):
        continue
      setattr(config, field.name, value)
      with pytest.raises(ConfigError) as error:
        ranges.check(experiment)
      assert f"config.{path}={value!r}" in str(error.value)
    setattr(config, field.name, usual)
  ranges.check(experiment)


@pytest.mark.parametrize(
  "field, value, what",
  [
    ("batch_size", 0, "config.data.batch_size=0: must be at least 1 and"),
    ("batch_size", -2, "config.data.batch_size=-2: must be at least 1"),
    ("speeds", (0.0,), r"speeds=\(0.0,\): each must be at least 0.25"),
    ("speeds", (), "must be a tuple of one item or more"),
    ("num_frames", 0, "num_frames=0: must be at least 1"),
    ("resolution", 512.0, "resolution=512.0 must be a whole number"),
    ("path", 3, "path=3 must be a text"),
    ("pauses", None, "pauses=None must be a Config of speech_augmentation"),
  ],
)
def test_the_sentence_names_field_value_and_range(field, value, what):
  experiment = inpainting.get_config("demo")
  setattr(experiment.data, field, value)
  with pytest.raises(ConfigError, match=what):
    ranges.check(experiment)


def test_a_stage_is_no_number():
  experiment = inpainting.get_config("demo")
  experiment.stage = 3
  with pytest.raises(ConfigError, match="stage=3 must be a Config of"):
    ranges.check(experiment)


def test_a_tuple_has_its_length():
  experiment = triplane.get_config("demo")
  experiment.stage.model.sr_channels = (8,)
  with pytest.raises(ConfigError, match="a tuple of 2 items"):
    ranges.check(experiment)


def test_a_range_of_no_number_is_a_mistake_of_ours():
  with pytest.raises(TypeError, match="no int or float sped"):
    ranges.declare(sped=ranges.SHARE)(Data)


def test_a_record_is_as_little_trusted():
  experiment = triplane.get_config("demo")
  experiment.stage.optim.learning_rate = math.nan
  record = {
    "stage": name_of(experiment),
    "config": config_io.to_dict(experiment),
  }
  with pytest.raises(InputError, match="learning_rate=nan"):
    experiment_of(record)


@pytest.mark.parametrize(
  "flag, what",
  [
    ("--config.stage=3", "its fields"),
    ("--config.seed=-1", "seed=-1: must be at least 0"),
    ("--config.stage.optim.learning_rate=nan", "learning_rate=nan: must be"),
    ("--config.loop.num_steps=0", "num_steps=0: must be at least 1"),
    ("--config.data.speeds=(0.0,)", "speeds=(0.0,): each must be"),
  ],
)
def test_train_refuses_in_a_sentence(flag, what, tmp_path, run_command):
  config = "--config=experiments/triplane.py:demo"
  workdir = f"--workdir={tmp_path / 'run'}"
  code, _, errors = run_command("train", config, flag, workdir)
  assert code == 1 and len(errors) == 1 and what in errors[0]
  assert not (tmp_path / "run").exists()
