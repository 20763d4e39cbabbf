"""The loop: batch, step, now and then a report, a check and a checkpoint.

Restart order: this run's newest checkpoint, else from scratch.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.runtime import checkpoint, metrics, sharding
from pir_jax.types import InputError


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How long, and how often what.

  Attributes:
    num_steps: optimiser steps of the whole run, resumed or not.
    log_every: steps between reports; also how soon a NaN is seen.
    save_every: steps between checkpoints; the last step is always saved.
    evaluate_every: steps between held-out evaluations; also after the last.
    keep: newest checkpoints kept.
  """

  num_steps: int
  log_every: int = 50
  save_every: int = 1000
  evaluate_every: int = 1000
  keep: int = 2


def fit(
  stage: Any,
  config: Config,
  batches: Iterable[Any],
  held_out: Callable[[], Iterable[Any]],
  workdir: pathlib.Path,
  *,
  seed: int,
) -> Any:
  """Trains `stage` to `config.num_steps`, going on from where the run is.

  Args:
    stage: see stages/base.py.
    config: of the loop.
    batches: endless training batches (a grain dataset).
    held_out: makes the (finite) held-out batches anew.
    workdir: of the run; holds checkpoints and TensorBoard files.
    seed: of initialisation and of every step's noise.

  Returns:
    The last state.

  Raises:
    InputError: a training metric is NaN or infinite, by name and step.
  """
  key = jax.random.key(seed)
  iterator = iter(batches)
  checkpoints = checkpoint.Checkpoints(workdir, keep=config.keep)
  try:
    start = checkpoints.latest()
    if start is None:
      start, state = 0, stage.init(key)
    else:
      state = checkpoints.restore(start, stage.abstract_state(), iterator)
    with metrics.Reporter(
      workdir, name=stage.name, num_steps=config.num_steps
    ) as reporter:
      reporter.start(start)
      for index in range(start, config.num_steps):
        batch = sharding.shard_batch(stage.mesh, next(iterator))
        state, values = stage.step(state, batch, key, index=index)
        step = index + 1
        last = step == config.num_steps
        if step % config.log_every == 0 or last or index == start:
          reporter.scalars(step, _finite(values, step, workdir))
        if step % config.save_every == 0 or last:
          # A state that is not finite must not replace one that is; the
          # metrics are of the parameters before the step.
          _finite({**values, "the state": _health(state)}, step, workdir)
          checkpoints.save(step, state, iterator)
        if step % config.evaluate_every == 0 or last:
          _evaluate(stage, state, held_out(), step, reporter)
    return state
  finally:
    checkpoints.close()


@jax.jit
def _health(state: Any) -> jax.Array:
  """0, or NaN if any number of the state is not finite."""
  leaves = [x for x in jax.tree.leaves(state) if x.dtype == jnp.float32]
  sound = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
  return jnp.where(sound, 0.0, jnp.nan)


def _evaluate(
  stage: Any,
  state: Any,
  batches: Iterable[Any],
  step: int,
  reporter: metrics.Reporter,
) -> None:
  key = jax.random.key(0)  # The same draws at every evaluation.
  total: dict[str, float] = {}
  count = 0
  for batch in batches:
    size = len(jax.tree.leaves(batch)[0])
    for name, value in stage.evaluate(state, batch, key).items():
      total[name] = total.get(name, 0.0) + size * float(value)
    if not count:
      for name, grid in stage.preview(state, batch, key).items():
        reporter.image(step, name, np.asarray(grid))
    count += size
  if count:
    reporter.evaluation(step, {name: v / count for name, v in total.items()})


def _finite(
  values: Mapping[str, jax.Array], step: int, workdir: pathlib.Path
) -> dict[str, float]:
  numbers = {name: float(value) for name, value in values.items()}
  for name, value in numbers.items():
    if not math.isfinite(value):
      raise InputError(
        f"{name} is {value} at step {step}: training stopped, and {workdir} "
        "keeps what was saved before; train in another --workdir with a lower "
        "learning rate."
      )
  return numbers
