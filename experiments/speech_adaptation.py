"""Measures what seconds of a speaker add to what stage 1 learnt from others.

Command: python -m experiments.speech_adaptation
  --config=experiments/expression.py:demo --config.data.path=data/people
  --config.data.speakers=in_step.tsv --config.data.num_folds=5
  --folds_from=runs/folds --workdir=runs/adaptation [--seconds=10]
For each clip that is long enough: the network that never saw its speaker
(`experiments/speech_folds.py`) is adapted to the clip's first seconds, and both
are measured on the rest.
"""

import copy
import pathlib

from absl import flags

from pir_jax import train
from pir_jax.evaluation import held_out_speakers
from pir_jax.face import morphable
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import open_run
from pir_jax.runtime import app
from pir_jax.types import InputError

_SECONDS = flags.DEFINE_float("seconds", 10.0, "Of each clip to adapt to.")
_FOLDS_FROM = flags.DEFINE_string(
  "folds_from", None, "Workdir of experiments.speech_folds."
)
_REST = 4.0  # Seconds to measure, at least.


def measure_fold(experiment: Experiment, fold: int, workdir: pathlib.Path):
  """Returns rows of one fold's clips: before adaptation, and after."""
  experiment = copy.deepcopy(experiment)
  data = experiment.data
  data.fold, seconds = fold, _SECONDS.value
  others = pathlib.Path(_FOLDS_FROM.value) / f"fold{fold}"
  model, before, after = morphable.load(), [], []
  for clip in data.open():
    long = clip.manifest.duration >= seconds + _REST
    if not len(clip.rows("held_out")) or clip.shift is None or not long:
      continue
    one = copy.deepcopy(experiment)
    one.data.path, one.data.num_folds = str(clip.path), 0
    one.data.train_seconds = seconds
    one.stage.init_from = str(others)
    train.train(one, workdir / clip.path.name)
    (known,) = one.data.open()
    for rows, place in (before, others), (after, workdir / clip.path.name):
      rows.append(held_out_speakers.measure(known, open_run(place), model))
  return before, after


def main() -> None:
  """Adapts, measures and prints both tables."""
  experiment = flags.FLAGS["config"].value
  if not isinstance(experiment, Experiment) or not experiment.data.num_folds:
    raise InputError(
      "say --config=experiments/expression.py:demo, --config.data.speakers and "
      "--config.data.num_folds=5."
    )
  app.required(_FOLDS_FROM)
  if not flags.FLAGS["workdir"].value:
    raise InputError("Missing required flags: --workdir.")
  workdir = pathlib.Path(flags.FLAGS["workdir"].value)
  before, after = [], []
  for fold in range(experiment.data.num_folds):
    for rows, more in zip(
      (before, after), measure_fold(experiment, fold, workdir), strict=True
    ):
      rows += more
  texts = [
    held_out_speakers.as_text(rows, {name: rows})
    for name, rows in (
      ("of others alone", before),
      (f"adapted to {_SECONDS.value:g} s", after),
    )
  ]
  text = "\n\n".join(texts)
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / "adaptation.txt").write_text(text + "\n", encoding="utf-8")
  print(text)


if __name__ == "__main__":
  app.run(main)
