"""Repeats the paper's Table 1: how much context speech needs.

Command: python -m experiments.expression_context
  --config=experiments/expression.py --config.data.path=data/a,data/b
  --workdir=runs/context [--frames=1,10,50,100,200]
Trains the expression stage once for each k, with windows, decoder memory and
encoder windows of k frames, and measures each on the held-out tails. A run that
is there already goes on or is only measured. The paper reports LMD 2.556,
2.273, 1.626, 1.477, 1.650 on a test set it does not name, on generated
frames; ours is of the posed head: compare the shape, not the values.
The paper does not say what else changed with k: here a step always sees as many
frames (batch times k), and windows of the encoder overlap by up to 30 frames.
Short clips hold few windows of a large k, and a pause put into a window of one
tick has its lips a quarter closed: mind both when you read the ends.
With `expression.py:scratch` and two clips of 8 s: a minute or two for each k on
two CPU cores.
"""

import copy
import json
import pathlib

from absl import flags

from pir_jax import train
from pir_jax.evaluation import expression as expression_lib
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import app
from pir_jax.stages import expression
from pir_jax.types import InputError

_FRAMES = flags.DEFINE_list(
  "frames",
  ["1", "10", "50", "100", "200"],
  "The ks; --config, --config.data.path and --workdir are those of train.",
)
_MARGIN = 15  # Frames, where the window is long enough.


def with_context(base: Experiment, k: int) -> Experiment:
  """The experiment at a context of k frames and as many frames a step."""
  made = copy.deepcopy(base)
  num_frames = base.data.batch_size * base.data.num_frames
  made.data.batch_size = max(1, round(num_frames / k))
  made.data.num_frames = made.stage.window = made.stage.model.context = k
  made.stage.margin = min(_MARGIN, k // 4)
  return made


def as_text(rows: dict[int, dict[str, expression_lib.Measured]]) -> str:
  """The sweep for a person."""
  some = next(iter(rows.values()))[expression_lib.MEAN]
  lines = [
    f"{'k':>5}{'LMD px':>10}{'LVE mm':>10}{'corr':>10}{'shuffled':>10}"
    f"{'in pauses':>11}",
    f"{'mean':>5}{some.mouth:>10.3f}{some.vertex:>10.2f}",
  ]
  for k, row in rows.items():
    ours, other = row[expression_lib.OURS], row[expression_lib.SHUFFLED]
    lines.append(
      f"{k:>5}{ours.mouth:>10.3f}{ours.vertex:>10.2f}{ours.correlation:>10.2f}"
      f"{other.correlation:>10.2f}{ours.rest:>11.2f}"
    )
  return "\n".join(lines)


def main() -> None:
  """Trains, measures and prints the table."""
  base = flags.FLAGS["config"].value
  if not isinstance(base, Experiment) or not isinstance(
    base.stage, expression.Config
  ):
    raise InputError("say --config=experiments/expression.py.")
  if not flags.FLAGS["workdir"].value:
    raise InputError("Missing required flags: --workdir.")
  if not all(text.isdigit() and int(text) > 0 for text in _FRAMES.value):
    raise InputError("--frames must be integers from 1: say --frames=1,10.")
  workdir = pathlib.Path(flags.FLAGS["workdir"].value)
  rows = {}
  for k in map(int, _FRAMES.value):
    run = workdir / f"k{k}"
    train.train(with_context(base, k), run)
    expression_lib.report(run, base.data.paths, run / "report")
    tables = json.loads((run / "report" / "speech.json").read_text())
    measured = list(tables.values())[-1]
    rows[k] = {
      name: expression_lib.from_plain(row) for name, row in measured.items()
    }
  text = as_text(rows)
  (workdir / "context.txt").write_text(text + "\n")
  print(f"{text}\n{workdir / 'context.txt'}")


if __name__ == "__main__":
  app.run(main)
