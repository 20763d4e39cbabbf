"""Validation: metrics on the held-out examples, and images of some."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pir_jax.runtime import metric_writer, preemption, sharding
from pir_jax.types import InputError


def warm_up(
  stage: Any, state: Any, batches: Iterable[Any], best: str = ""
) -> None:
  """Compiles the evaluation, before there is any training to lose.

  Args:
    stage: see stages/base.py.
    state: of it.
    batches: held out, whole on every process.
    best: a metric that must be among them, with or without a minus before it.

  Raises:
    InputError: it is not.
  """
  names: list[str] = []
  for batch in batches:
    names = [*_evaluate(stage, state, batch, images=True)[0]]
    break
  if best and best.removeprefix("-") not in names:
    raise InputError(
      f"--config.loop.best={best} is not measured on the held-out data: choose "
      f"one of {', '.join(names) or 'nothing, as there is none'}."
    )


def evaluate(
  stage: Any,
  state: Any,
  batches: Iterable[Any],
  step: int,
  reporter: metric_writer.Reporter,
  notice: preemption.Notice,
) -> dict[str, float]:
  """Reports and returns means over the examples; none if interrupted.

  Args:
    stage: see stages/base.py.
    state: after `step` steps.
    batches: held out, whole on every process.
    step: steps done.
    reporter: gets metrics, and images of the first batch.
    notice: checked before every batch.
  """
  total: dict[str, float] = {}
  count = 0
  for batch in batches:
    if notice.should_stop(step):
      return {}
    metrics, grids = _evaluate(stage, state, batch, images=not count)
    for name, grid in grids.items():
      reporter.image(step, name, grid)
    size = len(jax.tree.leaves(batch)[0])
    for name, value in metrics.items():
      total[name] = total.get(name, 0.0) + size * value
    count += size
  means = {name: value / count for name, value in total.items()}
  if means:
    reporter.evaluation(step, means)
  return means


def _evaluate(
  stage: Any, state: Any, batch: Any, *, images: bool
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  key = jax.random.key(0)  # The same noise at every evaluation.
  batch = sharding.place_whole(stage.mesh, batch)
  metrics = stage.evaluate(state, batch, key)
  grids = stage.preview(state, batch, key) if images else {}
  # Every process takes part, although only one of them reports.
  grids = multihost_utils.process_allgather(grids, tiled=True)
  return {name: float(value) for name, value in metrics.items()}, grids
