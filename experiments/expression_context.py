"""Repeats the paper's Table 1, on people never seen: the context of speech.

Command: python -m experiments.expression_context
  --config=experiments/base.py:expression --config.data.path=data/people
  --config.data.speakers=in_step.tsv --config.data.num_folds=5
  --workdir=runs/context [--frames=1,10,50,100,200] [--seeds=0,1,2] [--folds=0]
Trains the expression stage for each k and seed, with windows, decoder memory
and encoder windows of k frames, and measures each on the speakers left out. A
run that is there already goes on or is only measured. The paper reports LMD
2.556, 2.273, 1.626, 1.477, 1.650 on a test set it does not name, on generated
frames; ours is of the posed head, at each clip's own shift of sound, around the
person's mean: compare the shape, not the values.
The paper does not say what else changed with k: here a step always sees as many
frames (batch times k), and windows of the encoder overlap by up to 15 frames.
Two minutes for each k, seed and fold on two CPU cores.
"""

import copy
from collections.abc import Callable

import numpy as np
from absl import flags

from experiments import speech_folds
from pir_jax.evaluation import held_out_speakers
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import app
from pir_jax.types import InputError

_FRAMES = flags.DEFINE_list(
  "frames",
  ["1", "10", "50", "100", "200"],
  "The ks; --config, --config.data.path and --workdir are those of train.",
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the trainings.")
_MARGIN = 15  # Frames, where the window is long enough.


def with_context(base: Experiment, k: int) -> Experiment:
  """The experiment at a context of k frames and as many frames a step."""
  made = copy.deepcopy(base)
  num_frames = base.data.batch_size * base.data.num_frames
  made.data.batch_size = max(1, round(num_frames / k))
  made.data.num_frames = made.stage.window = made.stage.model.context = k
  made.stage.margin = min(_MARGIN, k // 4)
  return made


def as_text(rows: dict[int, list[list[held_out_speakers.Row]]]) -> str:
  """The sweep for a person: means over speakers, intervals, range of seeds.

  Args:
    rows: by k, a list for each seed.
  """

  def cell(seeds, figure: Callable[[held_out_speakers.Row], float]) -> str:
    pooled = [row for seed in seeds for row in seed]
    mean, low, high = held_out_speakers.interval(pooled, figure)
    means = [held_out_speakers.interval(seed, figure)[0] for seed in seeds]
    spread = np.ptp(means)
    return f"{mean:8.2f} ({low:.2f}-{high:.2f}) {spread:6.3f}"

  heads = ("LMD px", "gain over the mean", "r")
  lines = [
    f"{'k':>5}" + "".join(f"{head:>29}" for head in heads),
    f"{'':5}" + f"{'mean (over speakers) seeds':>29}" * len(heads),
  ]
  for k, seeds in rows.items():
    cells = (
      cell(seeds, lambda row: row.distance),
      cell(seeds, lambda row: row.gain),
      cell(seeds, lambda row: row.correlation),
    )
    lines.append(f"{k:>5}" + "".join(f"{text:>29}" for text in cells))
  return "\n".join(lines)


def main() -> None:
  """Trains, measures and prints the table."""
  for flag in (_FRAMES, _SEEDS):
    if not all(text.isdigit() for text in flag.value) or not flag.value:
      raise InputError(
        f"--{flag.name} must be integers: say --{flag.name}=1,2."
      )
  if "0" in _FRAMES.value:
    raise InputError("--frames must be integers from 1: say --frames=1,10.")
  base, workdir = speech_folds.flagged()
  rows = {}
  for k in map(int, _FRAMES.value):
    experiment = with_context(base, k)
    rows[k] = []
    for seed in map(int, _SEEDS.value):
      experiment.seed = seed
      place = workdir / f"k{k}_seed{seed}"
      rows[k].append(speech_folds.measure_folds(experiment, place))
  text = as_text(rows)
  (workdir / "context.txt").write_text(text + "\n")
  print(f"{text}\n{workdir / 'context.txt'}")


if __name__ == "__main__":
  app.run(main)
