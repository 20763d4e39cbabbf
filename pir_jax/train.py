"""Trains one stage: `python -m pir_jax.train --config=... --workdir=...`.

Run it again with the same --workdir and it goes on where it was. On several
hosts, start it once on each: see experiments/launch.
"""

import pathlib

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from pir_jax.data import manifest, pipelines, sources
from pir_jax.runs import audio_expressions, run_record
from pir_jax.runs.experiment import Experiment, mesh_for
from pir_jax.runs.run import make_stage, settle
from pir_jax.runtime import (
  app,
  distributed,
  finish,
  loop,
  memory,
  preemption,
  profiler,
  sharding,
)
from pir_jax.stages import expression
from pir_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file, such as experiments/triplane.py:demo; fields "
  "are set by --config.field=value.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of the run: made, or gone on with."
)
_RESUME_FROM = flags.DEFINE_string(
  "resume_from",
  None,
  "Another run whose state a new one begins with, under a config of its own.",
)
_PROFILE = flags.DEFINE_string(
  "profile", None, "START:STEPS, such as 20:5: these steps are traced."
)


def train(
  experiment: Experiment,
  workdir: pathlib.Path,
  source: pathlib.Path | None = None,
  profile: tuple[int, int] | None = None,
) -> None:
  """Trains to the end from where the run is, or a new one from another's."""
  paths = experiment.data.paths
  space = manifest.load_space(paths)
  people = run_record.people(paths)
  # Both are made before anything is trained or written: they may refuse.
  mesh = mesh_for(experiment)
  batches = _batches(experiment, mesh)
  held_out = _batches(experiment)
  experiment = settle(experiment, _num_frames(experiment))
  run_record.check(workdir, experiment, space, people)
  try:
    heard = audio_expressions.training_table(experiment, space, workdir)
    stage = make_stage(experiment, space, workdir, mesh, heard)
    state = stage.abstract_state()
  except ValueError as error:  # Sizes that no network can have, by name.
    raise InputError(f"{error}") from error
  if source is not None:
    run_record.adopt(workdir, source, space, stage)
  run_record.write(workdir, experiment, space, people, stage)
  distributed.check_shared(workdir / "run.json")
  finish.clear(workdir)
  if jax.process_index() == 0:
    held, whole = map(memory.readable, sharding.device_bytes(state))
    print(f"state {whole}, {held} on each of {mesh.size} devices")
  loop.fit(
    stage,
    experiment.loop,
    batches,
    lambda: held_out,
    workdir,
    seed=experiment.seed,
    profile=profile,
  )
  finish.mark(workdir, experiment.loop.num_steps)


def _num_frames(experiment: Experiment) -> int:
  """Of the training data; 0 for speech."""
  data = experiment.data
  if isinstance(experiment.stage, expression.Config):
    return 0
  return len(sources.FrameSource(data.paths, resolution=data.resolution))


def _batches(experiment: Experiment, mesh: Mesh | None = None):
  """What this process reads to train, or (without a mesh) held-out batches."""
  data, train = experiment.data, mesh is not None
  options = dict(
    split="train" if train else "held_out",
    batch_size=data.batch_size,
    seed=experiment.seed,
    shuffle=train,
    repeat=train,
    # Of held-out examples every process has all: they may not divide.
    rows=sharding.local_rows(mesh, data.batch_size) if train else None,
  )
  if isinstance(experiment.stage, expression.Config):
    return pipelines.speech_dataset(
      data.paths,
      num_frames=data.num_frames,
      pauses=data.pauses if train else None,
      speeds=data.speeds,
      **options,
    )
  return pipelines.face_dataset(
    data.paths, resolution=data.resolution, **options
  )


def main() -> None:
  """The command."""
  experiment = _CONFIG.value
  if not isinstance(experiment, Experiment):
    flag = flags.FLAGS["config"]
    given = flag.config_filename if flag.present else "nothing"
    raise InputError(
      f"{given} is no experiment: say --config=experiments/triplane.py:demo "
      "or another file whose get_config returns a runs.Experiment."
    )
  if not _WORKDIR.value:
    raise InputError("nowhere to keep the run: say --workdir=DIRECTORY.")
  if "://" in _WORKDIR.value:
    raise InputError(
      f"--workdir={_WORKDIR.value} is no folder: mount the bucket (gcsfuse, "
      "s3fs) and name the place where it is mounted."
    )
  profile = profiler.parse(_PROFILE.value)
  source = _RESUME_FROM.value and pathlib.Path(_RESUME_FROM.value)
  with distributed.joined(), preemption.watch():
    train(experiment, pathlib.Path(_WORKDIR.value), source, profile)


if __name__ == "__main__":
  app.run(main)
