"""What the training loop adds to the bare step.

Command: python -m experiments.loop_overhead
  --config=experiments/triplane.py:demo --config.data.path=data/me
  --workdir=runs/overhead/triplane [--blocks=8] [--block=25]
Trains a fresh run; between its steps, in blocks, the same steps are taken bare:
on one batch that is on the device already, nothing read, reported or saved. As
blocks alternate in one process, other programs disturb both alike; the work of
all cores they disturb least. Checkpoints and evaluations are left out: they
come as often as one asks for.
"""

import pathlib
import time
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import flags

from pir_jax import train
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import app, loop, sharding
from pir_jax.types import InputError

_BLOCKS = flags.DEFINE_integer("blocks", 8, "Pairs of blocks timed.", 2)
_BLOCK = flags.DEFINE_integer("block", 25, "Steps in a block.", 1)


def _clocks() -> np.ndarray:
  """Seconds that have passed, and seconds of work on all cores."""
  return np.array([time.perf_counter(), time.process_time()])


class Alternating:
  """A stage between whose steps bare steps are taken and timed.

  Attributes:
    bare: times of each block of bare steps, see `_clocks`.
    looped: times of each block of the loop's own steps.
  """

  def __init__(self, stage: Any, batch: Any, seed: int, block: int):
    self._stage = stage
    self._batch = sharding.shard_batch(stage.mesh, batch)
    self._key = jax.random.key(seed)
    self._state = stage.init(self._key)
    self._block = block
    self._begin: np.ndarray | None = None
    self.bare: list[np.ndarray] = []
    self.looped: list[np.ndarray] = []

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stage, name)

  def step(self, state, batch, key, *, index):
    """The loop's step; at the beginning of a block, first a bare block."""
    if index % self._block == 0:
      jax.block_until_ready(state)
      if self._begin is not None:
        self.looped.append(_clocks() - self._begin)
      begin = _clocks()
      for i in range(index, index + self._block):
        self._state, values = self._stage.step(
          self._state, self._batch, self._key, index=i
        )
      jax.block_until_ready((self._state, values))
      self.bare.append(_clocks() - begin)
      self._begin = _clocks()
    return self._stage.step(state, batch, key, index=index)


def compare(
  experiment: Experiment, workdir: pathlib.Path, blocks: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
  """Times (blocks, 2) of bare steps and of the loop's, see `_clocks`.

  The first pair, which compiles and fills caches, is left out.
  """
  made: list[Alternating] = []
  original = loop.fit

  def fit(stage, config, batches, held_out, workdir, *, seed, **options):
    made.append(Alternating(stage, next(iter(batches)), seed, block))
    return original(
      made[0], config, batches, held_out, workdir, seed=seed, **options
    )

  num_steps = (blocks + 1) * block + 1
  experiment.loop.num_steps = num_steps
  experiment.loop.save_every = experiment.loop.evaluate_every = num_steps
  with mock.patch.object(loop, "fit", fit):
    train.train(experiment, workdir)
  kept = slice(1, blocks + 1)
  return (
    np.stack(made[0].bare[kept]) / block,
    np.stack(made[0].looped[kept]) / block,
  )


def as_text(bare: np.ndarray, looped: np.ndarray) -> str:
  """The comparison for a person."""
  lines = []
  for i, name in enumerate(("time", "work of all cores")):
    plain, mine = bare[:, i], looped[:, i]
    low, middle, high = np.percentile(100 * (mine / plain - 1), (25, 50, 75))
    whole = 100 * (mine.sum() / plain.sum() - 1)
    lines.append(
      f"{name}: bare step {1e3 * np.median(plain):.1f} ms, in the loop "
      f"{1e3 * np.median(mine):.1f} ms; it adds {middle:+.1f} % (quartiles "
      f"{low:+.1f} to {high:+.1f} %), {whole:+.1f} % in "
      f"sum of {len(plain)} blocks"
    )
  return "\n".join(lines)


def main() -> None:
  """The command."""
  experiment = flags.FLAGS["config"].value
  if not isinstance(experiment, Experiment) or not flags.FLAGS["workdir"].value:
    raise InputError("Missing required flags: --config, --workdir.")
  workdir = pathlib.Path(flags.FLAGS["workdir"].value)
  if workdir.exists():
    raise InputError(f"{workdir} is there already: choose another --workdir.")
  print(as_text(*compare(experiment, workdir, _BLOCKS.value, _BLOCK.value)))


if __name__ == "__main__":
  app.run(main)
