"""A run: its config, its stage, its directory. Made, written down, reopened."""

import dataclasses
import importlib.metadata
import json
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
    fsdp: devices over which large parameters are split.
  """

  stage: expression.Config | triplane.Config | inpainting.Config
  loop: loop.Config
  data: Data = dataclasses.field(default_factory=Data)
  seed: int = 0
  fsdp: int = 1


class Run(NamedTuple):
  """A finished (or stopped) run, ready for use."""

  experiment: Experiment
  stage: Any
  state: base.TrainState
  space: FaceSpace
  step: int
  people: list[dict[str, Any]]


def mesh_for(experiment: Experiment) -> Mesh:
  """As many devices as the batch can be shared out to evenly."""
  devices = jax.devices()
  num = math.gcd(len(devices), experiment.data.batch_size)
  if num < len(devices):
    print(
      f"{num} of {len(devices)} devices are used: a batch of "
      f"{experiment.data.batch_size} is not shared out to more."
    )
  return sharding.make_mesh(experiment.fsdp, devices[:num])


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
  config = experiment.stage
  num_steps = experiment.loop.num_steps
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


def write(
  workdir: pathlib.Path,
  experiment: Experiment,
  space: FaceSpace,
  people: list[dict[str, Any]],
  stage: base.Stage,
) -> None:
  """Writes run.json; an older one must be of the same networks and data.

  Args:
    workdir: of the run.
    experiment: what it runs.
    space: coefficients of its data.
    people: source, sha256, identity, masks and face model of each clip.
    stage: that is trained.

  Raises:
    InputError: the directory holds a run of something else.
  """
  # Through JSON at once, so that it compares with what is read back.
  record = json.loads(json.dumps(_record(experiment, space, people)))
  record["triplane_step"] = getattr(stage, "triplane_step", None)
  if (workdir / "run.json").exists():
    old = checkpoint.read_record(workdir)
    if any(old[key] != record[key] for key in ("stage", "space", "people")):
      raise InputError(
        f"{workdir} holds a run of stage {old['stage']}, of another stage or "
        "on other data than this: choose another --workdir or delete it."
      )
    _check_generator(workdir, old, stage)
    # What a resumed run must share to see the batches it would have seen.
    if any(
      old["config"][key] != record["config"][key] for key in ("stage", "seed")
    ) or any(
      old["config"]["data"][key] != record["config"]["data"][key]
      for key in ("batch_size", "resolution", "num_frames", "pauses", "speeds")
    ):
      raise InputError(
        f"{workdir} holds a run of another config: choose another --workdir or "
        "delete it."
      )
  checkpoint.write_record(workdir, record)


def _check_generator(workdir, record, stage) -> None:
  """The feature images must be those that stage 3 was trained on."""
  step = getattr(stage, "triplane_step", None)
  if step != record.get("triplane_step") and not getattr(
    stage.config, "joint", False
  ):
    raise InputError(
      f"{workdir} was trained on step {record.get('triplane_step')} of its "
      f"tri-plane run, which is now at {step}: train stage 3 again, in another "
      "--workdir."
    )


def _record(experiment, space, people) -> dict[str, Any]:
  return {
    "stage": _name(experiment),
    "config": configs.to_dict(experiment),
    "space": {
      "identity_size": space.identity_size,
      "expression_names": list(space.expression_names),
      "expression_mean": np.asarray(space.expression_mean).tolist(),
      "expression_scale": np.asarray(space.expression_scale).tolist(),
      "face_model": space.face_model,
    },
    "people": people,
    "versions": {
      name: importlib.metadata.version(name)
      for name in ("jax", "flax", "optax", "orbax-checkpoint", "grain")
    },
  }


def open_run(workdir: pathlib.Path, mesh: Mesh | None = None) -> Run:
  """The newest checkpoint of a run and the stage it belongs to.

  Args:
    workdir: of the run.
    mesh: where it lives; one device unless said otherwise.

  Raises:
    InputError: no such run, or it has no checkpoint yet.
  """
  workdir = pathlib.Path(workdir)
  record = checkpoint.read_record(workdir)
  values = dict(record["config"])
  stage_config = configs.from_dict(
    STAGES[record["stage"]], values.pop("stage"), "stage"
  )
  experiment = Experiment(
    stage=stage_config,
    loop=configs.from_dict(loop.Config, values.pop("loop"), "loop"),
    data=configs.from_dict(Data, values.pop("data"), "data"),
    **values,
  )
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
  _check_generator(workdir, record, stage)
  checkpoints = checkpoint.Checkpoints(workdir)
  try:
    step = checkpoints.latest()
    if step is None:
      raise InputError(f"{workdir} has no checkpoint: train it first.")
    state = checkpoints.restore(step, stage.abstract_state())
  finally:
    checkpoints.close()
  return Run(experiment, stage, state, space, step, record["people"])


def _name(experiment: Experiment) -> str:
  return next(
    name for name, kind in STAGES.items() if isinstance(experiment.stage, kind)
  )
