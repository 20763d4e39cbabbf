"""A training run: its stage made from a config, or opened from a directory."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from pir_jax import pretrained
from pir_jax.pretrained import eg3d as eg3d_weights
from pir_jax.runs import frozen_networks, network_file
from pir_jax.runs.experiment import (
  Experiment,
  experiment_of,
  name_of,
  space_of,
)
from pir_jax.runtime import checkpoint, checkpoint_integrity, sharding
from pir_jax.stages import base, expression, inpainting, train_state, triplane
from pir_jax.types import FaceSpace, InputError

# The networks of many people that come with the package.
BASE_FOLDER = pathlib.Path(pretrained.__file__).with_name(network_file.BASE)


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
  encoder: nnx.Module | None = None,
) -> base.Stage:
  """Makes the stage of an experiment, with the frozen networks it needs.

  Args:
    experiment: what to make.
    space: that its networks know, see `network_space`.
    workdir: of the run; the inpainting stage looks for stage 2 beside it.
    mesh: where it lives.
    predicted: expressions, see `inpainting.Inpainting`; for training only.
    encoder: of speech, where it is not to be loaded by the config.

  Raises:
    InputError: a file is missing, or sizes do not fit each other.
  """
  stage = _stage(experiment, space, workdir, mesh, predicted, encoder)
  stage.split_by(experiment.sharding)
  if experiment.stage.init_from:
    stage.begin = functools.partial(_begin, experiment.stage, stage)
  return stage


def _stage(experiment, space, workdir, mesh, predicted, encoder) -> base.Stage:
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
      encoder or frozen_networks.speech_encoder(config),
      num_steps=num_steps,
      mesh=mesh,
      lip_basis=frozen_networks.lip_basis(space)
      if config.weights.lips
      else None,
    )
  perceptual = frozen_networks.perceptual(config)
  if isinstance(config, triplane.Config):
    if experiment.data.resolution != config.model.resolution:
      raise InputError(
        f"data.resolution={experiment.data.resolution} must be the tri-plane's "
        f"own resolution={config.model.resolution}."
      )
    return triplane.TriPlane(
      config,
      space,
      perceptual,
      num_steps=num_steps,
      mesh=mesh,
    )
  triplane_run = open_run(_triplane_of(config, workdir), mesh)
  stage = inpainting.Inpainting(
    config,
    triplane_run.space,
    perceptual,
    generator_of(triplane_run),
    num_steps=num_steps,
    mesh=mesh,
    resolution=experiment.data.resolution,
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
  if config.init_from and not _is_ours(config.init_from):
    published_config = eg3d_weights.read_config(config.init_from)
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


def network_space(
  experiment: Experiment,
  data_space: FaceSpace,
  workdir: pathlib.Path,
  source: pathlib.Path | None = None,
) -> FaceSpace:
  """Returns the space that the networks of a run know.

  A network that begins from nothing learns the space of its data. One that goes
  on keeps the space that it was made with, whatever the data; stage 3's is that
  of the stage 2 it renders with.

  Args:
    experiment: of the run.
    data_space: of its data.
    workdir: of the run.
    source: another run whose whole state it takes over.

  Raises:
    InputError: the data's coefficients are of another face model.
  """
  config = experiment.stage
  if not has_begun(workdir):  # What goes on needs its origin no more.
    _check_origin(config)
  if isinstance(config, inpainting.Config):
    origin = _triplane_of(config, workdir)
  elif has_begun(workdir):
    origin = workdir
  elif source is None and config.init_from and _is_ours(config.init_from):
    origin = origin_of(config.init_from, name_of(experiment))
  else:
    origin = source
  if origin is None:
    return data_space
  space = space_of(read_record(origin))
  if not space.is_like(data_space):
    raise InputError(
      f"{origin} knows {space.identity_size} identity and "
      f"{space.expression_size} expression coefficients of a face model and "
      f"the data has {data_space.identity_size} and "
      f"{data_space.expression_size}, or those of another: prepare the video "
      "with the same --face_model, or begin from nothing: "
      "--config.stage.init_from=."
    )
  return space


def read_record(place: pathlib.Path) -> dict[str, Any]:
  """Reads the record of a run, from its directory or from an exported file.

  Raises:
    InputError: there is none, or it is damaged.
  """
  if place.suffix == network_file.SUFFIX:
    return network_file.read_record(place)
  return checkpoint.read_record(place)


def has_begun(workdir: pathlib.Path) -> bool:
  """Whether a run has saved anything: one that has not is begun anew."""
  return (workdir / "run.json").exists() and bool(
    checkpoint_integrity.steps(workdir) or any(workdir.glob("damaged/*"))
  )


def check_person(folder: pathlib.Path) -> None:
  """Checks that a folder holds the networks of a person.

  Raises:
    InputError: it does not; it may be the run of one stage.
  """
  if place_of(folder, "inpainting").exists():
    return
  problem = f"{folder} does not exist"
  if folder.exists():
    problem = f"{folder} holds no trained person"
  raise InputError(
    f"{problem}: name the folder with the runs expression, triplane and "
    "inpainting, or one that `python -m pir_jax.export` wrote."
  )


def place_of(person: pathlib.Path, stage: str) -> pathlib.Path:
  """Returns where a person's folder has a stage: an exported file or a run."""
  file = person / f"{stage}{network_file.SUFFIX}"
  return file if file.exists() else person / stage


def _triplane_of(config, workdir: pathlib.Path) -> pathlib.Path:
  place = place_of(workdir.resolve().parent, "triplane")
  if config.triplane:
    place = pathlib.Path(config.triplane)
  if not (place.is_file() or (place / "run.json").exists()):
    raise InputError(
      f"stage 3 renders with stage 2, and {place} is none: train it there "
      "first, by experiments/triplane.py in the same variant (such as :demo) "
      "and with the same --config.data.path, or name it by "
      "--config.stage.triplane."
    )
  return place


def _place_named(path: str) -> pathlib.Path:
  if path == network_file.BASE:
    return BASE_FOLDER
  return pathlib.Path(path)


def _is_ours(path: str) -> bool:
  place = _place_named(path)
  return place.is_dir() or network_file.is_one(place)


def _check_origin(config) -> None:
  """Refuses an `init_from` that names nothing, before anything is written."""
  path = config.init_from
  if not path or _is_ours(path):
    return
  eg3d = isinstance(config, triplane.Config) and pathlib.Path(path).is_file()
  if not eg3d:
    raise InputError(
      f"init_from={path} is no run, person or exported network: check the name."
    )


def origin_of(path: str, stage: str) -> pathlib.Path:
  """Returns the run or file of a stage that `init_from` names.

  Raises:
    InputError: it is of another stage.
  """
  place = _place_named(path)
  if place.is_dir() and not (place / "run.json").exists():
    place = place_of(place, stage)
  named = read_record(place)["stage"]
  if named != stage:
    raise InputError(
      f"init_from={path} is of stage {named}, not {stage}: name another."
    )
  return place


def _begin(config, stage, state) -> train_state.TrainState:
  """Puts what `init_from` names into a fresh state."""
  if not _is_ours(config.init_from):
    model = dataclasses.replace(
      config.model,
      identity_size=stage.space.identity_size,
      expression_size=stage.space.expression_size,
    )
    generator = eg3d_weights.load(config.init_from, config=model)
    arrays = train_state.named("generator", nnx.state(generator, nnx.Param), {})
    # Its mapping network takes noise and a camera.
    fresh = ("generator/params/mapping/", "generator/buffers/")
    return train_state.begin_from(state, arrays, config.init_from, fresh=fresh)
  place = origin_of(config.init_from, stage.name)
  if place.suffix == network_file.SUFFIX:
    arrays = network_file.read_arrays(place)
  else:
    arrays = train_state.learnt(open_run(place).state)
  arrays = {k: v for k, v in arrays.items() if not k.startswith("refinement/")}
  base = config.init_from == network_file.BASE
  print(f"begins from {'the base of many people' if base else place}.")
  return train_state.begin_from(state, arrays, str(place))


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


def open_run(place: pathlib.Path, mesh: Mesh | None = None) -> Run:
  """Opens a trained network, and its stage.

  Args:
    place: directory of a run, of which the newest whole checkpoint is taken,
      or an exported file.
    mesh: where it lives; one device of this process by default.

  Raises:
    InputError: no such run, or it has no checkpoint yet.
  """
  place = pathlib.Path(place)
  record = read_record(place)
  experiment = experiment_of(record)
  space = space_of(record)
  if mesh is None:
    mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
  encoder = None
  if "encoder" in record:
    encoder = frozen_networks.abstract_encoder(record["encoder"])
  stage = make_stage(experiment, space, place, mesh, encoder=encoder)
  check_generator(place, record, stage)
  if place.suffix == network_file.SUFFIX:
    step, state = record["step"], _state_of(stage, place)
  else:
    # It may be in training: nothing in it is moved.
    checkpoints = checkpoint.Checkpoints(place, read_only=True)
    restored = checkpoints.restore_newest(stage.abstract_state())
    checkpoints.close()
    if restored is None:
      raise InputError(f"{place} has no checkpoint: train it first.")
    step, state = restored
  return Run(experiment, stage, state, space, step, record["people"])


def _state_of(stage, path: pathlib.Path) -> train_state.TrainState:
  """Returns an exported state, to be used and not to be trained on."""
  abstract = stage.abstract_state()
  arrays = network_file.read_arrays(path)
  nets = {
    name: net._replace(opt_state=())
    for name, net in abstract.nets.items()
    if name != "refinement"
  }
  return train_state.begin_from(abstract._replace(nets=nets), arrays, str(path))
