"""Measures stage 1 on people it never saw: cross-validation over speakers.

Command: python -m experiments.speech_folds
  --config=experiments/base.py:expression --config.data.path=data/people
  --config.data.speakers=people.tsv --config.data.num_folds=5
  --workdir=runs/folds [--list=in_step.tsv]
Trains a network for each fold of the speakers and measures it on those who were
left out; a fold that is trained already is only measured. --list writes the
list again with the shift of each clip's sound as it was measured, empty where
the lips follow no shift of it: to be trained on next.
"""

import copy
import csv
import pathlib

from absl import flags

from pir_jax import train
from pir_jax.data import speakers
from pir_jax.evaluation import held_out_speakers
from pir_jax.face import morphable
from pir_jax.preparation import phonemes
from pir_jax.runs import speech_shift
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import open_run
from pir_jax.runtime import app
from pir_jax.types import InputError

_LIST = flags.DEFINE_string("list", "", "Where to write the list with shifts.")
_FOLDS = flags.DEFINE_list("folds", [], "Only these; by default all.")
_LEAST = flags.DEFINE_float(
  "least",
  speech_shift.LEAST,
  "Correlation from which a clip's shift is believed.",
)
_GRID = "GRID_"  # A vocabulary of 50 words, apart from free speech.


def measure_fold(experiment: Experiment, fold: int, workdir: pathlib.Path):
  """Trains without a fold's speakers; returns a row for each of their clips."""
  experiment = copy.deepcopy(experiment)
  experiment.data.fold = fold
  place = workdir / f"fold{fold}"
  train.train(experiment, place)
  run, model, rows = open_run(place), morphable.load(), []
  recognise = phonemes.recognise if phonemes.available() else None
  for clip in experiment.data.open():
    if not len(clip.rows("held_out")):
      continue
    try:
      rows.append(held_out_speakers.measure(clip, run, model, recognise))
    except InputError as error:
      print(f"left out: {error}")
  return rows


def write_list(
  source: pathlib.Path, target: pathlib.Path, measured: dict[str, int | None]
) -> None:
  """Writes a list again, with what was measured added to each clip's shift."""
  shifts = {file: entry.shift for file, entry in speakers.read(source).items()}
  for file, further in measured.items():
    known = further is not None and shifts[file] is not None
    shifts[file] = shifts[file] + further if known else None
  with source.open(encoding="utf-8", newline="") as file:
    lines = list(csv.DictReader(file, delimiter="\t"))
  names = [*(name for name in lines[0] if name != "shift"), "shift"]
  part = target.with_name(target.name + ".part")
  with part.open("w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, names, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for line in lines:
      shift = shifts[line["file"]]
      writer.writerow({**line, "shift": "" if shift is None else shift})
  part.replace(target)


def flagged() -> tuple[Experiment, pathlib.Path]:
  """Returns the experiment and the working directory of the command's flags.

  Raises:
    InputError: it is not one of folds of speakers, or there is no directory.
  """
  experiment = flags.FLAGS["config"].value
  if not isinstance(experiment, Experiment) or not experiment.data.num_folds:
    raise InputError(
      "say --config=experiments/base.py:expression, --config.data.speakers and "
      "--config.data.num_folds=5."
    )
  if not flags.FLAGS["workdir"].value:
    raise InputError("Missing required flags: --workdir.")
  return experiment, pathlib.Path(flags.FLAGS["workdir"].value)


def measure_folds(
  experiment: Experiment, workdir: pathlib.Path
) -> list[held_out_speakers.Row]:
  """Trains and measures the folds that were asked for, one after another."""
  return [
    row
    for fold in chosen_folds(experiment)
    for row in measure_fold(experiment, fold, workdir)
  ]


def chosen_folds(experiment: Experiment) -> list[int]:
  """Returns the folds that were asked for."""
  return [*map(int, _FOLDS.value or range(experiment.data.num_folds))]


def main() -> None:
  """Trains, measures and prints the table."""
  experiment, workdir = flagged()
  rows = measure_folds(experiment, workdir)
  groups = {
    "free speech": [row for row in rows if not row.source.startswith(_GRID)],
    "GRID": [row for row in rows if row.source.startswith(_GRID)],
  }
  text = held_out_speakers.as_text(rows, groups)
  (workdir / "speakers.txt").write_text(text + "\n", encoding="utf-8")
  print(text)
  if _LIST.value:
    shifts = {
      row.source: held_out_speakers.shift_of(row, _LEAST.value) for row in rows
    }
    list_path = pathlib.Path(experiment.data.speakers)
    write_list(list_path, pathlib.Path(_LIST.value), shifts)


if __name__ == "__main__":
  app.run(main)
