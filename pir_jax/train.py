"""Trains one stage: `python -m pir_jax.train --config=experiments/triplane.py`.

Run it again with the same --workdir and it resumes where it was. On several
hosts, start it once on each: see experiments/launch.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax import ranges
from pir_jax.interface import training_view
from pir_jax.media import whole_file
from pir_jax.preparation import packaged_clip
from pir_jax.profiling import abstract_stage, memory_check
from pir_jax.runs import audio_expressions, batches, run_record, speech_shift
from pir_jax.runs.experiment import (
  Experiment,
  checked,
  default_workdir,
  mesh_for,
)
from pir_jax.runs.run import has_begun, make_stage, network_space, resolve
from pir_jax.runtime import (
  app,
  distributed,
  loop,
  memory,
  profiler,
  run_lock,
  sharding,
)
from pir_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file, such as experiments/triplane.py:demo; fields "
  "are set by --config.field=value.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of the run; by default runs/[VARIANT/]EXPERIMENT."
)
_RESUME_FROM = flags.DEFINE_string(
  "resume_from",
  None,
  "Another run whose state a new one begins with, under a config of its own.",
)
flags.adopt_module_key_flags(distributed)
flags.adopt_module_key_flags(training_view)
_PROFILE = flags.DEFINE_string(
  "profile", None, "START:STEPS, such as 20:5: these steps are traced."
)


def train(
  experiment: Experiment,
  workdir: pathlib.Path,
  source: pathlib.Path | None = None,
  profile: tuple[int, int] | None = None,
  viewer: tuple[str, int] | None = None,
) -> None:
  """Trains a stage to its last step, resuming the run where there is one.

  Args:
    experiment: what to train, on what, for how long.
    workdir: of the run.
    source: another run, whose state a new one starts from.
    profile: first step and number of steps to trace.
    viewer: host and port at which the face is shown meanwhile; stage 2 only.

  Raises:
    InputError: the experiment, its data or the run cannot be used.
  """
  # All that may refuse comes before anything is trained or written.
  ranges.check(experiment)
  whole_file.check_folder(workdir)
  data = experiment.data.open()
  mesh = mesh_for(experiment)
  num_frames = sum(len(clip.rows("train")) for clip in data)
  experiment = resolve(experiment, num_frames)
  space = network_space(experiment, data.space, workdir, source)
  data = speech_shift.in_step(experiment, data, workdir)
  training = batches.make(experiment, data, mesh)
  held_out = batches.make(experiment, data)
  run_record.check(workdir, experiment, data, space)
  predicted = audio_expressions.training_table(experiment, data, workdir)
  stage = make_stage(experiment, space, workdir, mesh, predicted)
  state = stage.abstract_state()
  with (
    training_view.shown_at(viewer, stage, data, space) as watch,
    run_lock.held(workdir),
  ):
    if source is not None:
      run_record.adopt(workdir, source, stage)
    if not has_begun(workdir):  # What goes on has fitted before.
      memory_check.check(experiment, stage)
    run_record.write(workdir, experiment, data, stage)
    distributed.check_shared(workdir / "run.json")
    if jax.process_index() == 0:
      held, whole = map(memory.readable, sharding.device_bytes(state))
      print(f"the run is {workdir}")
      print(f"state {whole}, {held} on each of {mesh.size} devices")
    loop.fit(
      stage,
      experiment.loop,
      training,
      lambda: held_out,
      workdir,
      seed=experiment.seed,
      profile=profile,
      compile_ahead=lambda: stage.compile_ahead(
        *abstract_stage.arguments(experiment, stage)
      ),
      watch=watch,
    )


def main() -> None:
  """Runs the command."""
  (experiment,) = app.required(_CONFIG)
  config = flags.FLAGS["config"].config_filename
  experiment = checked(experiment, config)
  workdir = _WORKDIR.value or default_workdir(config)
  if "://" in workdir:
    raise InputError(
      f"--workdir={workdir} is not a folder: mount the bucket (gcsfuse, s3fs) "
      "and name the folder where it is mounted."
    )
  profile = profiler.parse(_PROFILE.value)
  if not experiment.data.path:
    experiment.data.path = str(packaged_clip.prepared())
    print(f"--config.data.path is not set: {experiment.data.path}")
  source = _RESUME_FROM.value and pathlib.Path(_RESUME_FROM.value)
  with distributed.joined():
    viewer = training_view.address()
    train(experiment, pathlib.Path(workdir), source, profile, viewer)


if __name__ == "__main__":
  app.run(main)
