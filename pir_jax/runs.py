"""A run: its config, its stage, its directory. Made, written down, reopened."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from pir_jax import frozen
from pir_jax.convert import eg3d as eg3d_weights
from pir_jax.data import speech
from pir_jax.runtime import checkpoint, configs, loop, sharding
from pir_jax.stages import base, expression, inpainting, triplane
from pir_jax.types import FaceSpace, InputError

# Inside Experiment the module's own name is a field.
_Sharding = sharding.Config

STAGES = {
  "expression": expression.Config,
  "triplane": triplane.Config,
  "inpainting": inpainting.Config,
}


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
    speeds: at which speech is learnt; 1.0 is as it was spoken.
  """

  path: str = ""
  batch_size: int = 1
  resolution: int = 512
  num_frames: int = 100
  pauses: speech.Config = dataclasses.field(default_factory=speech.Config)
  speeds: tuple[float, ...] = (1.0,)

  @property
  def paths(self) -> list[str]:
    """The prepared clips, one by one."""
    if not self.path:
      raise InputError("no data: say --config.data.path=FOLDER.")
    if pathlib.Path(self.path).exists():  # A comma may be part of a name.
      return [self.path]
    return [path.strip() for path in self.path.split(",")]


@dataclasses.dataclass(kw_only=True, slots=True)
class Experiment:
  """All that a training run is made from.

  Attributes:
    stage: the Config of one stage; its type says which.
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


class Run(NamedTuple):
  """A finished (or stopped) run, ready for use."""

  experiment: Experiment
  stage: Any
  state: base.TrainState
  space: FaceSpace
  step: int
  people: list[dict[str, Any]]


def mesh_for(experiment: Experiment, devices: list | None = None) -> Mesh:
  """As many devices as the batch can be shared out to evenly.

  Args:
    experiment: whose batch is meant.
    devices: of the machine; all that jax sees where none are given.

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
  try:
    return sharding.make_mesh(experiment.sharding, devices[:num])
  except ValueError as error:
    raise InputError(f"--config.sharding: {error}") from error


def make_stage(
  experiment: Experiment,
  space: FaceSpace,
  workdir: pathlib.Path,
  mesh: Mesh,
  heard: Float[np.ndarray, "n e"] | None = None,
) -> base.Stage:
  """The stage of an experiment, with the frozen networks it needs.

  Args:
    experiment: what to make.
    space: coefficients of the data.
    workdir: of the run; the inpainting stage looks for stage 2 beside it.
    mesh: where it lives.
    heard: see `inpainting.Inpainting`; for training only.

  Raises:
    InputError: a file is missing, or sizes do not fit each other.
  """
  stage = _stage(experiment, space, workdir, mesh, heard)
  stage.split_by(experiment.sharding)
  return stage


def _stage(experiment, space, workdir, mesh, heard) -> base.Stage:
  config = experiment.stage
  num_steps = experiment.loop.num_steps
  size = experiment.data.batch_size
  if config.accumulate < 1 or size % config.accumulate:
    raise InputError(
      f"stage.accumulate={config.accumulate} must divide the batch: "
      f"data.batch_size={size}."
    )
  if isinstance(config, expression.Config):
    return expression.Expression(
      config,
      space,
      frozen.speech_encoder(config),
      num_steps=num_steps,
      mesh=mesh,
      lip_basis=frozen.lip_basis(space) if config.weights.lips else None,
    )
  perceptual = frozen.perceptual(config)
  if isinstance(config, triplane.Config):
    _check_resolution(experiment, config.model)
    return triplane.TriPlane(
      config,
      space,
      perceptual,
      num_steps=num_steps,
      mesh=mesh,
      published=published(config, space) if config.warm_start else None,
    )
  source = pathlib.Path(
    config.triplane or workdir.resolve().parent / "triplane"
  )
  drawn_by = open_run(source, mesh)
  generator = generator_of(drawn_by)
  _check_resolution(experiment, generator.config)
  stage = inpainting.Inpainting(
    config,
    space,
    perceptual,
    generator,
    num_steps=num_steps,
    mesh=mesh,
    heard=heard,
  )
  stage.triplane_step = drawn_by.step
  return stage


def settle(experiment: Experiment, num_frames: int) -> Experiment:
  """An experiment with what only its data and its files can say.

  Args:
    experiment: as it was asked for; stays as it is.
    num_frames: of the training data.

  Returns:
    One with the sizes of the published weights that it starts from, and a
    correction for every training frame, where it asks for these.

  Raises:
    InputError: the weights cannot be read, or are not of a network like ours.
  """
  config = experiment.stage
  if not isinstance(config, triplane.Config):
    return experiment
  changes = {}
  if config.refinement.enabled:
    changes["refinement"] = dataclasses.replace(
      config.refinement, num_frames=num_frames
    )
  if config.warm_start:
    try:
      found = eg3d_weights.read_config(config.warm_start)
    except InputError:  # It names the file itself.
      raise
    except ValueError as error:
      raise InputError(f"{config.warm_start}: {error}") from error
    renderer = dataclasses.replace(
      found.renderer, remat=config.model.renderer.remat
    )
    changes["model"] = dataclasses.replace(
      found,
      map_depth=config.model.map_depth,
      dtype=config.model.dtype,
      renderer=renderer,
    )
  return dataclasses.replace(
    experiment, stage=dataclasses.replace(config, **changes)
  )


def published(
  config: triplane.Config, space: FaceSpace
) -> Callable[[], nnx.Module]:
  """Reads the generator a run starts from, when that is needed."""
  model = dataclasses.replace(
    config.model,
    identity_size=space.identity_size,
    expression_size=space.expression_size,
  )
  return lambda: eg3d_weights.load(config.warm_start, config=model)


def _check_resolution(experiment, model) -> None:
  if experiment.data.resolution != model.resolution:
    raise InputError(
      f"data.resolution={experiment.data.resolution} must be the tri-plane's "
      f"own resolution={model.resolution}."
    )


def generator_of(run: Run) -> nnx.Module:
  """The tri-plane generator of a stage 2 run, with its averaged parameters."""
  return run.stage.generator.bind(
    run.state.ema["generator"], run.state.nets["generator"].buffers
  )


def check_generator(
  workdir: pathlib.Path, record: dict[str, Any], stage: Any
) -> None:
  """The feature images must be those that stage 3 was trained on.

  Raises:
    InputError: the tri-plane run was trained on since.
  """
  step = getattr(stage, "triplane_step", None)
  if step != record.get("triplane_step") and not getattr(
    stage.config, "joint", False
  ):
    raise InputError(
      f"{workdir} was trained on step {record.get('triplane_step')} of its "
      f"tri-plane run, which is now at {step}: train stage 3 again, in another "
      "--workdir."
    )


def experiment_of(record: dict[str, Any]) -> Experiment:
  """The experiment that a run.json tells of.

  Raises:
    InputError: another version of pir_jax wrote it.
  """
  values = dict(record["config"])
  stage_config = configs.from_dict(
    STAGES[record["stage"]], values.pop("stage"), "stage"
  )
  split = values.pop("sharding", {"fsdp": values.pop("fsdp", 1)})
  return Experiment(
    stage=stage_config,
    loop=configs.from_dict(loop.Config, values.pop("loop"), "loop"),
    data=configs.from_dict(Data, values.pop("data"), "data"),
    sharding=configs.from_dict(sharding.Config, split, "sharding"),
    **values,
  )


def open_run(workdir: pathlib.Path, mesh: Mesh | None = None) -> Run:
  """The newest checkpoint of a run that is whole, and its stage.

  Args:
    workdir: of the run.
    mesh: where it lives; one device unless said otherwise.

  Raises:
    InputError: no such run, or it has no checkpoint yet.
  """
  workdir = pathlib.Path(workdir)
  record = checkpoint.read_record(workdir)
  experiment = experiment_of(record)
  space = FaceSpace(
    record["space"]["identity_size"],
    tuple(record["space"]["expression_names"]),
    np.float32(record["space"]["expression_mean"]),
    np.float32(record["space"]["expression_scale"]),
    record["space"].get("face_model", ""),
  )
  if mesh is None:
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
  stage = make_stage(experiment, space, workdir, mesh)
  check_generator(workdir, record, stage)
  # It may be in training: nothing in it is moved.
  checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
  found = checkpoints.restore_newest(stage.abstract_state())
  checkpoints.close()
  if found is None:
    raise InputError(f"{workdir} has no checkpoint: train it first.")
  step, state = found
  return Run(experiment, stage, state, space, step, record["people"])


def name_of(experiment: Experiment) -> str:
  """Of its stage, as in run directories."""
  return next(
    name for name, kind in STAGES.items() if isinstance(experiment.stage, kind)
  )
