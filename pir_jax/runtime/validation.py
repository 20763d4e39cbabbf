"""How good a state is on held-out examples, and pictures of some."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pir_jax.runtime import metric_writer, preemption, sharding
from pir_jax.types import InputError


def rehearse(
  stage: Any, state: Any, batches: Iterable[Any], best: str = ""
) -> None:
  """Compiles what takes the scores, before there is anything to lose.

  Args:
    stage: see stages/base.py.
    state: of it.
    batches: held out, whole on every process.
    best: a score that must be among them, with or without a minus before it.

  Raises:
    InputError: it is not.
  """
  names: list[str] = []
  for batch in batches:
    names = [*_measure(stage, state, batch, pictures=True)[0]]
    break
  if best and best.removeprefix("-") not in names:
    raise InputError(
      f"--config.loop.best={best} is not measured on the held-out data: say "
      f"one of {', '.join(names) or 'nothing, as there is none'}."
    )


def take(
  stage: Any,
  state: Any,
  batches: Iterable[Any],
  step: int,
  reporter: metric_writer.Reporter,
  notice: preemption.Notice,
) -> dict[str, float]:
  """Means over the examples, reported; nothing if told to stop meanwhile.

  Args:
    stage: see stages/base.py.
    state: after `step` steps.
    batches: held out, whole on every process.
    step: steps done.
    reporter: gets scores, and pictures of the first batch.
    notice: looked at before every batch.
  """
  total: dict[str, float] = {}
  count = 0
  for batch in batches:
    if notice.given(step):
      return {}
    found, grids = _measure(stage, state, batch, pictures=not count)
    for name, grid in grids.items():
      reporter.image(step, name, grid)
    size = len(jax.tree.leaves(batch)[0])
    for name, value in found.items():
      total[name] = total.get(name, 0.0) + size * value
    count += size
  scores = {name: value / count for name, value in total.items()}
  if scores:
    reporter.evaluation(step, scores)
  return scores


def _measure(
  stage: Any, state: Any, batch: Any, *, pictures: bool
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  key = jax.random.key(0)  # The same draws at every evaluation.
  batch = sharding.place_whole(stage.mesh, batch)
  found = stage.evaluate(state, batch, key)
  grids = stage.preview(state, batch, key) if pictures else {}
  # Every process takes part, although only one of them reports.
  grids = multihost_utils.process_allgather(grids, tiled=True)
  return {name: float(value) for name, value in found.items()}, grids
