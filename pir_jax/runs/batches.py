"""The batches of an experiment: Grain pipelines over its data."""

from jax.sharding import Mesh

from pir_jax.data import pipelines
from pir_jax.data.dataset import Dataset
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import sharding
from pir_jax.stages import expression, inpainting


def make(experiment: Experiment, data: Dataset, mesh: Mesh | None = None):
  """Makes this process's training batches or, without a mesh, held-out ones."""
  config, train = experiment.data, mesh is not None
  options = dict(
    split="train" if train else "held_out",
    batch_size=config.batch_size,
    seed=experiment.seed,
    shuffle=train,
    repeat=train,
    # Of held-out examples every process has all: they may not divide.
    rows=sharding.local_rows(mesh, config.batch_size) if train else None,
  )
  if isinstance(experiment.stage, expression.Config):
    return pipelines.speech_dataset(
      data,
      num_frames=config.num_frames,
      margin=experiment.stage.margin,
      pauses=config.pauses if train else None,
      speeds=config.speeds,
      **options,
    )
  around_mask = isinstance(experiment.stage, inpainting.Config)
  shown = {"resolution": config.resolution, "around_mask": around_mask}
  return pipelines.face_dataset(data, **shown, **options)
