"""What a training run is made from: the configs of stage, data and loop."""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pir_jax import ranges
from pir_jax.data import speakers, speech_augmentation
from pir_jax.data.dataset import Dataset
from pir_jax.runtime import config_io, loop, sharding
from pir_jax.stages import expression, inpainting, triplane
from pir_jax.types import ConfigError, FaceSpace, InputError

# Inside Experiment the module's own name is a field.
_Sharding = sharding.Config

STAGES = {
  "expression": expression.Config,
  "triplane": triplane.Config,
  "inpainting": inpainting.Config,
}


@ranges.declare(
  batch_size=ranges.COUNT,
  num_frames=ranges.COUNT,
  speeds=ranges.Range(0.25, 4),
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Data:
  """What a run reads.

  Attributes:
    path: a prepared clip (`python -m pir_jax.prepare`), or several with commas
      between them.
    batch_size: over all devices.
    resolution: of the network's frame (picture stages).
    num_frames: of a speech window (the expression stage).
    pauses: put into speech windows in training.
    speeds: at which speech is learnt; 1.0 is as recorded.
    speakers: list of who speaks in which clip, see `data.speakers`; empty
      holds out the tail of each clip.
    fold: of the speakers, who are held out, from 0.
    num_folds: parts that the speakers are dealt into; 0 holds out tails.
    train_seconds: of each clip these first ones are trained on and the rest is
      held out; 0 holds out the last 1/11.
  """

  path: str = ""
  batch_size: int = 1
  resolution: int = 512
  num_frames: int = 100
  pauses: speech_augmentation.Config = dataclasses.field(
    default_factory=speech_augmentation.Config
  )
  speeds: tuple[float, ...] = (1.0,)
  speakers: str = ""
  fold: int = 0
  num_folds: int = 0
  train_seconds: float = 0.0

  @property
  def paths(self) -> list[str]:
    """The prepared clips, one by one."""
    if not self.path:
      raise InputError("no data: say --config.data.path=FOLDER.")
    if pathlib.Path(self.path).exists():  # A comma may be part of a name.
      return [self.path]
    return [path.strip() for path in self.path.split(",")]

  def open(self) -> Dataset:
    """Opens the clips, and deals out their speakers where a list names them."""
    data = Dataset.open(self.paths)
    if self.train_seconds and self.num_folds:
      raise ConfigError(
        f"train_seconds={self.train_seconds:g} and num_folds={self.num_folds} "
        "hold out different parts: set one of them to 0"
      )
    if self.train_seconds:
      data = Dataset([clip.trained_on(self.train_seconds) for clip in data])
    if self.speakers:
      return speakers.split(data, self.speakers, self.fold, self.num_folds)
    if self.num_folds:
      raise ConfigError(
        f"num_folds={self.num_folds} needs a list of speakers: set "
        "--config.data.speakers=people.tsv"
      )
    return data


@ranges.declare(seed=ranges.Range(0, 2**32 - 1))
@dataclasses.dataclass(kw_only=True, slots=True)
class Experiment:
  """All that a training run is made from.

  Attributes:
    stage: the Config of one stage; known by its type.
    data: what is read.
    loop: how long.
    seed: of everything random.
    sharding: over how many devices the state is split, and how.
  """

  stage: expression.Config | triplane.Config | inpainting.Config
  loop: loop.Config
  data: Data = dataclasses.field(default_factory=Data)
  seed: int = 0
  sharding: _Sharding = dataclasses.field(default_factory=_Sharding)


def checked(experiment: Any, source: str, stage: str = "") -> Experiment:
  """Returns what an experiment's file made, once its values are checked.

  Args:
    experiment: of the file.
    source: its name, for the message.
    stage: that it must be of; "" is any.

  Raises:
    InputError: it is no experiment, of another stage, or a value is wrong.
  """
  fits = isinstance(experiment, Experiment)
  if not fits or (stage and not isinstance(experiment.stage, STAGES[stage])):
    raise InputError(
      f"{source} is no experiment{f' of {stage}' if stage else ''}: name "
      f"experiments/{stage or 'triplane'}.py, or another file whose get_config "
      "returns an Experiment."
    )
  ranges.check(experiment)
  return experiment


def mesh_for(experiment: Experiment, devices: list | None = None) -> Mesh:
  """Makes a mesh of as many devices as share the batch evenly.

  Args:
    experiment: whose batch is meant.
    devices: of the machine; by default all that jax sees.

  Raises:
    InputError: the devices are of several processes, each of which must have
      its part of the batch; or `fsdp` does not divide them.
  """
  devices = jax.devices() if devices is None else devices
  batch_size = experiment.data.batch_size
  num = math.gcd(len(devices), batch_size)
  if num < len(devices):
    processes = len({device.process_index for device in devices})
    if processes > 1:
      raise InputError(
        f"data.batch_size={batch_size} must be a multiple of the "
        f"{len(devices)} devices of the {processes} processes: say "
        f"--config.data.batch_size="
        f"{math.ceil(batch_size / len(devices)) * len(devices)}, or start "
        "fewer processes."
      )
    print(
      f"{num} of {len(devices)} devices are used: a batch of "
      f"{batch_size} is not shared out to more."
    )
  return sharding.make_mesh(experiment.sharding, devices[:num])


def experiment_of(record: dict[str, Any]) -> Experiment:
  """Rebuilds the experiment that a run.json records.

  Raises:
    InputError: another version of pir_jax wrote it.
  """
  values = dict(record["config"])
  stage_config = config_io.from_dict(
    STAGES[record["stage"]], values.pop("stage"), "stage"
  )
  split = values.pop("sharding", {"fsdp": values.pop("fsdp", 1)})
  experiment = Experiment(
    stage=stage_config,
    loop=config_io.from_dict(loop.Config, values.pop("loop"), "loop"),
    data=config_io.from_dict(Data, values.pop("data"), "data"),
    sharding=config_io.from_dict(sharding.Config, split, "sharding"),
    **values,
  )
  ranges.check(experiment)
  return experiment


def default_workdir(config: str) -> str:
  """Returns where the run of an experiment's file (FILE:VARIANT) lies."""
  name, _, variant = config.partition(":")
  return str(pathlib.Path("runs", variant, pathlib.Path(name).stem))


def space_of(record: dict[str, Any]) -> FaceSpace:
  """Returns the space that a run.json records."""
  space = record["space"]
  return FaceSpace(
    space["identity_size"],
    tuple(space["expression_names"]),
    np.float32(space["expression_mean"]),
    np.float32(space["expression_scale"]),
    space.get("face_model", ""),
  )


def prior_of(*stages: Any) -> str:
  """Names what some stages' networks began from, for the titles of tables.

  Args:
    stages: their configs.

  Returns:
    Such as ", begun from base"; empty where all began from nothing.
  """
  names = {pathlib.PurePath(x.init_from).name for x in stages if x.init_from}
  return f", begun from {' and '.join(sorted(names))}" if names else ""


def name_of(experiment: Experiment) -> str:
  """Of its stage, as in run directories."""
  return next(
    name for name, kind in STAGES.items() if isinstance(experiment.stage, kind)
  )
