"""A training run: its stage made from a config, or opened from a directory."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from pir_jax.pretrained import eg3d as eg3d_weights
from pir_jax.runs import frozen_networks
from pir_jax.runs.experiment import Experiment, experiment_of
from pir_jax.runtime import checkpoint, sharding
from pir_jax.stages import base, expression, inpainting, train_state, triplane
from pir_jax.types import FaceSpace, InputError


class Run(NamedTuple):
  """A finished (or stopped) run, ready for use."""

  experiment: Experiment
  stage: Any
  state: train_state.TrainState
  space: FaceSpace
  step: int
  people: list[dict[str, Any]]


def make_stage(
  experiment: Experiment,
  space: FaceSpace,
  workdir: pathlib.Path,
  mesh: Mesh,
  predicted: Float[np.ndarray, "n e"] | None = None,
) -> base.Stage:
  """Makes the stage of an experiment, with the frozen networks it needs.

  Args:
    experiment: what to make.
    space: coefficients of the data.
    workdir: of the run; the inpainting stage looks for stage 2 beside it.
    mesh: where it lives.
    predicted: expressions, see `inpainting.Inpainting`; for training only.

  Raises:
    InputError: a file is missing, or sizes do not fit each other.
  """
  stage = _stage(experiment, space, workdir, mesh, predicted)
  stage.split_by(experiment.sharding)
  return stage


def _stage(experiment, space, workdir, mesh, predicted) -> base.Stage:
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
      frozen_networks.speech_encoder(config),
      num_steps=num_steps,
      mesh=mesh,
      lip_basis=frozen_networks.lip_basis(space)
      if config.weights.lips
      else None,
    )
  perceptual = frozen_networks.perceptual(config)
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
  triplane_run = open_run(source, mesh)
  generator = generator_of(triplane_run)
  _check_resolution(experiment, generator.config)
  stage = inpainting.Inpainting(
    config,
    space,
    perceptual,
    generator,
    num_steps=num_steps,
    mesh=mesh,
    predicted_expression=predicted,
  )
  stage.triplane_step = triplane_run.step
  return stage


def resolve(experiment: Experiment, num_frames: int) -> Experiment:
  """Completes an experiment with what only its data and its files can say.

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
    published_config = eg3d_weights.read_config(config.warm_start)
    renderer = dataclasses.replace(
      published_config.renderer, remat=config.model.renderer.remat
    )
    changes["model"] = dataclasses.replace(
      published_config,
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
  """Returns the generator of a stage 2 run, with its averaged parameters."""
  return run.stage.generator.bind(
    run.state.ema["generator"], run.state.nets["generator"].buffers
  )


def check_generator(
  workdir: pathlib.Path, record: dict[str, Any], stage: Any
) -> None:
  """Checks that the feature images are those that stage 3 was trained on.

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


def open_run(workdir: pathlib.Path, mesh: Mesh | None = None) -> Run:
  """Opens the newest whole checkpoint of a run, and its stage.

  Args:
    workdir: of the run.
    mesh: where it lives; one device by default.

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
  restored = checkpoints.restore_newest(stage.abstract_state())
  checkpoints.close()
  if restored is None:
    raise InputError(f"{workdir} has no checkpoint: train it first.")
  step, state = restored
  return Run(experiment, stage, state, space, step, record["people"])
