"""The loop: batch, step, now and then a report, a check and a checkpoint.

Restart order: this run's newest whole checkpoint, else from scratch.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from pir_jax.runtime import (
  checkpoint,
  finite_checks,
  metric_writer,
  preemption,
  profiler,
  sharding,
  throughput,
  validation,
)
from pir_jax.types import InputError


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How long, and how often what.

  Attributes:
    num_steps: optimiser steps of the whole run, resumed or not.
    log_every: steps between reports; every step is looked at for NaN.
    save_every: steps between checkpoints; the last step is always saved.
    evaluate_every: steps between held-out evaluations; also after the last.
    keep: newest checkpoints kept.
    best: held-out metric whose best checkpoint is kept besides, such as
      "psnr", or "-lpips" where less is better; "" keeps none. Otherwise every
      evaluated step is saved.
  """

  num_steps: int
  log_every: int = 50
  save_every: int = 1000
  evaluate_every: int = 1000
  keep: int = 2
  best: str = ""


def fit(
  stage: Any,
  config: Config,
  batches: Iterable[Any],
  held_out: Callable[[], Iterable[Any]],
  workdir: pathlib.Path,
  *,
  seed: int,
  profile: tuple[int, int] | None = None,
) -> Any:
  """Trains `stage` to `config.num_steps`, going on from where the run is.

  Args:
    stage: see stages/base.py.
    config: of the loop.
    batches: endless training batches (a grain dataset): of each global batch
      the rows that this process has.
    held_out: makes the (finite) held-out batches anew, whole on every process.
    workdir: of the run; holds checkpoints and TensorBoard files.
    seed: of initialisation and of every step's noise.
    profile: the first step and the number of steps to trace.

  Returns:
    The last state.

  Raises:
    InputError: the run is past its last step; a term, gradient or number of the
      state is not finite, by name and step; or `profile` or `config.best` ask
      for what there is not.
    Preempted: the process was told to end; the state is saved.
  """
  key = jax.random.key(seed)
  iterator = iter(batches)
  with (
    preemption.watch() as notice,
    contextlib.closing(
      checkpoint.Checkpoints(workdir, keep=config.keep, best=config.best)
    ) as checkpoints,
    metric_writer.Reporter(
      workdir, name=stage.name, num_steps=config.num_steps
    ) as reporter,
  ):
    found = checkpoints.restore_newest(stage.abstract_state(), iterator)
    start = found[0] if found else 0
    if start > config.num_steps:
      raise InputError(
        f"{workdir} is at step {start} already, past --config.loop.num_steps="
        f"{config.num_steps}: say more, or choose another --workdir."
      )
    steps = range(start + 1, config.num_steps + 1)
    with profiler.Trace(profile, workdir, steps) as trace:
      reporter.start(start)
      state = found[1] if found else stage.init(key)
      run = _Run(
        stage, config, held_out, iterator, checkpoints, reporter, notice, trace
      )
      if steps:
        validation.rehearse(stage, state, held_out(), config.best)
      else:
        reporter.say(f"{stage.name}: all {start} steps are done.")
      return _train(run, state, key, steps, workdir)


class _Run(NamedTuple):
  """What a run goes on with; see `fit`."""

  stage: Any
  config: Config
  held_out: Callable[[], Iterable[Any]]
  iterator: Iterator[Any]
  checkpoints: checkpoint.Checkpoints
  reporter: metric_writer.Reporter
  notice: preemption.Notice
  trace: profiler.Trace

  def due(self, step: int, every: int) -> bool:
    """Whether what is done every so many steps is done after this one."""
    return step % every == 0 or step == self.config.num_steps


def _train(
  run: _Run,
  state: Any,
  key: Key[Array, ""],
  steps: range,
  workdir: pathlib.Path,
) -> Any:
  """The state after `steps`, the first step of all being 1."""
  stage, config = run.stage, run.config
  watch, clock = finite_checks.Watch(stage, workdir), throughput.Pace(stage)
  for step in steps:
    with clock.waiting():
      batch = next(run.iterator)
    given = state, sharding.shard_batch(stage.mesh, batch), key
    with run.trace.step(step):
      state, values = stage.step(*given, index=step - 1)
    watch.add(step, state, values)
    clock.count(given, step - 1, values)
    if step == steps[0]:
      numbers = watch.settle()
      # Compiled here, so that a save when told to end is quick.
      watch.check_state(step)
      run.reporter.compiled(step, numbers)
      clock.restart()
    elif run.due(step, config.log_every):
      numbers = watch.settle()
      run.reporter.scalars(step, numbers, clock.window())
    if run.trace.ends(step):
      watch.settle()
      with clock.paused():
        run.reporter.say(run.trace.finish())
    told, scores = run.notice.given(step), {}
    if run.due(step, config.evaluate_every) and not told:
      watch.settle()
      with clock.paused():
        scores = validation.take(
          stage, state, run.held_out(), step, run.reporter, run.notice
        )
      told = run.notice.given(step)
    if run.due(step, config.save_every) or told or (scores and config.best):
      watch.settle()
      with clock.paused():
        # A state that is not finite must not replace one that is; the numbers
        # of the step are of the parameters before it.
        watch.check_state(step)
        run.checkpoints.save(step, state, run.iterator, scores or None, told)
    if told:
      raise run.notice.preempted(step, workdir)
  return state
