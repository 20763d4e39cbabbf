"""What live speech costs: lips on people never seen, by how far it looks ahead.

Command: python -m experiments.look_ahead
  --config=experiments/base.py:expression --config.data.path=data/people
  --config.data.speakers=in_step.tsv --config.data.num_folds=5
  --workdir=runs/folds [--folds=0] [--seconds=0,0.1,0.2,0.4]
Measures the networks that experiments/speech_folds trained, in pieces of 80 ms
as `reenact --audio=-` predicts them, beside the whole speech at once. Half a
minute for each row and fold on two CPU cores.
"""

import copy
import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import speech_folds
from pir_jax.evaluation import expression, held_out_speakers
from pir_jax.face import morphable
from pir_jax.inference import live
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import open_run
from pir_jax.runtime import app
from pir_jax.types import FRAME_RATE

_SECONDS = flags.DEFINE_list("seconds", ["0", "0.1", "0.2", "0.4"], "To try.")
_LEVEL = 0.1  # Of speech in recordings; that of clips is 1.
_CHUNK = 800  # Samples that come at once.


@dataclasses.dataclass
class Streamed:
  """An expression stage that predicts as if the speech came now."""

  stage: Any
  look_ahead: int

  def predict(self, state, waveform, *who):
    """Predicts in pieces; see `Speaking.predict`."""
    stream = self.stage.speaker(state).stream(
      *who, look_ahead=self.look_ahead, step=live.STEP
    )
    waveform = _LEVEL * np.asarray(waveform)
    parts = [
      stream.push(waveform[i : i + _CHUNK])
      for i in range(0, len(waveform), _CHUNK)
    ]
    return np.concatenate([x for x in (*parts, stream.finish()) if len(x)])


class Row(NamedTuple):
  """A clip: who speaks, and how their lips are followed at every shift."""

  speaker: str
  correlations: dict[int, float]


def measure(
  experiment: Experiment, workdir: pathlib.Path, fold: int, ahead: int | None
) -> list[Row]:
  """Measures the longest passage of each clip; None: of the whole speech."""
  experiment = copy.deepcopy(experiment)
  experiment.data.fold = fold
  run = open_run(workdir / f"fold{fold}")
  if ahead is not None:
    run = run._replace(stage=Streamed(run.stage, ahead))
  rows, model = [], morphable.load()
  for clip in experiment.data.open():
    if not len(clip.rows("held_out")):
      continue
    passages = expression.passages(clip)
    passage = max(passages, key=lambda x: np.count_nonzero(x.held_out))
    head = expression.Head(model, passage.identity)
    predict = expression.predictor(passage, run)
    ours = predict(passage.waveform)[: len(passage.held_out)]
    opening = (head.opening(x) for x in (ours, passage.fitted))
    rows.append(
      Row(
        clip.speaker,
        held_out_speakers.correlations(*opening, passage.held_out),
      )
    )
  return rows


def as_line(name: str, rows: list[Row], whole: list[Row]) -> str:
  """Formats means over speakers, with 95 % intervals.

  Args:
    name: of the row.
    rows: of it.
    whole: of the whole speech, whose shifts of sound are taken.
  """
  by_clip = {
    id(row): row.correlations[max(all_.correlations, key=all_.correlations.get)]
    for row, all_ in zip(rows, whole, strict=True)
  }
  lost = {
    id(row): max(all_.correlations.values()) - by_clip[id(row)]
    for row, all_ in zip(rows, whole, strict=True)
  }
  cells = [
    "{:10.3f} ({:.3f} to {:.3f})".format(
      *held_out_speakers.interval(rows, lambda row, x=x: x[id(row)])
    )
    for x in (by_clip, lost)
  ]
  return f"{name:>10}" + "".join(cells)


def main() -> None:
  """Measures and prints the table."""
  experiment, workdir = speech_folds.flagged()
  print(f"{'look-ahead':>10}{'r':>26}{'lost':>26}")
  ticks = {f"{x} s": round(float(x) * FRAME_RATE) for x in _SECONDS.value}
  whole = None
  for name, ahead in {"whole": None, **ticks}.items():
    rows = [
      row
      for fold in speech_folds.chosen_folds(experiment)
      for row in measure(experiment, workdir, fold, ahead)
    ]
    whole = whole or rows
    print(as_line(name, rows, whole), flush=True)


if __name__ == "__main__":
  app.run(main)
