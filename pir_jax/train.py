"""Trains one stage: `python -m pir_jax.train --config=... --workdir=...`.

Run it again with the same --workdir and it goes on where it was.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax import hearing, runs
from pir_jax.data import manifest, pipelines, sources
from pir_jax.runtime import command, loop
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


def train(experiment: runs.Experiment, workdir: pathlib.Path) -> None:
  """Trains an experiment to its end, from wherever its run is."""
  paths = experiment.data.paths
  space = manifest.load_space(paths)
  kept = ("source", "sha256", "identity", "masks", "face_model")
  people = [
    {name: getattr(made, name) for name in kept}
    for made in map(manifest.load_manifest, paths)
  ]
  # Both are made before anything is trained or written: they may refuse.
  batches = _batches(experiment, train=True)
  _batches(experiment, train=False)
  experiment = runs.settle(experiment, _num_frames(experiment))
  try:
    stage = runs.make_stage(
      experiment,
      space,
      workdir,
      runs.mesh_for(experiment),
      hearing.training_table(experiment, space, workdir),
    )
  except ValueError as error:  # Sizes that no network can have, by name.
    raise InputError(f"{error}") from error
  runs.write(workdir, experiment, space, people, stage)
  loop.fit(
    stage,
    experiment.loop,
    batches,
    lambda: _batches(experiment, train=False),
    workdir,
    seed=experiment.seed,
  )


def _num_frames(experiment: runs.Experiment) -> int:
  """Of the training data; 0 for speech."""
  if isinstance(experiment.stage, expression.Config):
    return 0
  data = experiment.data
  return len(sources.FrameSource(data.paths, resolution=data.resolution))


def _batches(experiment: runs.Experiment, *, train: bool):
  data = experiment.data
  options = dict(
    split="train" if train else "held_out",
    batch_size=data.batch_size,
    seed=experiment.seed,
    shuffle=train,
    repeat=train,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
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
  if not isinstance(experiment, runs.Experiment):
    flag = flags.FLAGS["config"]
    given = flag.config_filename if flag.present else "nothing"
    raise InputError(
      f"{given} is no experiment: say "
      "--config=experiments/triplane.py:demo, or another file whose get_config "
      "returns a runs.Experiment."
    )
  if not _WORKDIR.value:
    raise InputError("nowhere to keep the run: say --workdir=DIRECTORY.")
  train(experiment, pathlib.Path(_WORKDIR.value))


if __name__ == "__main__":
  command.run(main)
