"""A step that cannot fit is refused with what would fit."""

import dataclasses
import re

import jax
import pytest

from pir_jax.models import renderer, triplane_generator
from pir_jax.profiling import abstract_stage, memory_check
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop, memory_estimate, sharding
from pir_jax.stages import triplane
from pir_jax.types import InputError

MODEL = triplane_generator.Config(
  w_size=8,
  map_depth=1,
  channel_base=64,
  channel_max=8,
  constant_side=8,
  plane_resolution=16,
  plane_channels=4,
  feature_resolution=8,
  resolution=32,
  sr_channels=(4, 4),
  renderer=renderer.Config(num_coarse=4, num_fine=4, hidden_size=8),
)


@pytest.fixture(scope="module")
def experiment():
  return Experiment(
    stage=triplane.Config(model=MODEL, perceptual_layers=1),
    data=Data(batch_size=8, resolution=32),
    loop=loop.Config(num_steps=1),
  )


@pytest.fixture(scope="module")
def stage(experiment):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return abstract_stage.make_stage(experiment, MODEL, mesh, shapes_only=True)


@pytest.mark.parametrize(
  "free, words",
  [
    (2**40, None),
    (None, None),
    (2**24, "accumulate=.* or --config.data.batch_size="),
    (2**16, "not even one example on each"),
  ],
)
def test_what_does_not_fit_is_refused(
  monkeypatch, experiment, stage, free, words
):
  monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: free)
  if words is None:
    memory_check.check(experiment, stage)
    return
  with pytest.raises(InputError, match=words):
    memory_check.check(experiment, stage)


@pytest.mark.parametrize(
  "batch, parts, fits, says",
  [
    (32, 1, 3, "accumulate=16 .*batch_size=3;"),
    (32, 2, 8, "accumulate=4 .*batch_size=16;"),
    (32, 1, 0, "not even one .* take :demo"),
  ],
)
def test_advice_divides_the_batch(batch, parts, fits, says):
  assert re.search(says, memory_check.advice(batch, parts, fits))


def test_what_is_advised_fits(monkeypatch, experiment, stage):
  free = 2**24
  monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: free)
  with pytest.raises(InputError) as error:
    memory_check.check(experiment, stage)
  size = int(re.search(r"batch_size=(\d+)", str(error.value))[1])
  data = dataclasses.replace(experiment.data, batch_size=size)
  memory_check.check(dataclasses.replace(experiment, data=data), stage)
