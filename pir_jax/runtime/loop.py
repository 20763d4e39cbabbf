"""The loop: batch, step, and now and then a report, an evaluation, a save.

Restart order: this run's newest undamaged checkpoint, otherwise from scratch.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from pir_jax import ranges
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

# A file of the workdir: all steps are done. Training ends with exit code 0 also
# when it was preempted, and a launcher must know which it was.
FINISHED = "finished"


@ranges.declare(
  num_steps=ranges.COUNT,
  log_every=ranges.COUNT,
  save_every=ranges.COUNT,
  evaluate_every=ranges.COUNT,
  keep=ranges.COUNT,
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How long to train, and how often to report, save and evaluate.

  Attributes:
    num_steps: optimiser steps of the whole run, resumed or not.
    log_every: steps between reports; every step is checked for NaN.
    save_every: steps between checkpoints; the last step is always saved.
    evaluate_every: steps between held-out evaluations; also after the last.
    keep: number of newest checkpoints kept.
    best: held-out metric whose best checkpoint is kept as well, such as
      "psnr", or "-lpips" where less is better, with every evaluated step
      saved; "" keeps none.
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
  compile_ahead: Callable[[], None] = lambda: None,
  watch: Callable[[int, Any], None] | None = None,
) -> Any:
  """Trains `stage` up to `config.num_steps`, from the newest checkpoint.

  Args:
    stage: see stages/base.py.
    config: of the loop.
    batches: endless training batches (a grain dataset): the rows of this
      process of each global batch.
    held_out: returns the (finite) held-out batches, whole on every process.
    workdir: of the run; holds checkpoints and TensorBoard files, and at the end
      the file FINISHED.
    seed: of initialisation and of every step's noise.
    profile: the first step and the number of steps to trace.
    compile_ahead: called where there is a step to take; may return before the
      phases are compiled.
    watch: called on this process after every step, with its number and the
      state, which the next step may overwrite; its time counts as a pause.

  Returns:
    The last state.

  Raises:
    InputError: the run is past its last step; a term, gradient or value of the
      state is not finite, by name and step; or `profile` or `config.best` do
      not fit the run.
    Preempted: the process was asked to stop; the state is saved.
  """
  key = jax.random.key(seed)
  finished = workdir / FINISHED
  if jax.process_index() == 0:
    finished.unlink(missing_ok=True)
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
    restored = checkpoints.restore_newest(stage.abstract_state(), iterator)
    start = restored[0] if restored else 0
    if start > config.num_steps:
      raise InputError(
        f"{workdir} is at step {start} already, past --config.loop.num_steps="
        f"{config.num_steps}: raise it, or choose another --workdir."
      )
    steps = range(start + 1, config.num_steps + 1)
    with profiler.Trace(profile, workdir, steps) as trace:
      reporter.start(start)
      if steps:
        compile_ahead()
      state = restored[1] if restored else stage.init(key)
      run = _Run(
        stage,
        config,
        held_out,
        iterator,
        checkpoints,
        reporter,
        notice,
        trace,
        watch,
      )
      if steps:
        validation.warm_up(stage, state, held_out(), config.best)
      else:
        reporter.say(f"{stage.name}: all {start} steps are done.")
      state = _train(run, state, key, steps, workdir)
  if jax.process_index() == 0:
    finished.write_text(f"{config.num_steps}\n")
  return state


class _Run(NamedTuple):
  """The parts of a run; see `fit`."""

  stage: Any
  config: Config
  held_out: Callable[[], Iterable[Any]]
  iterator: Iterator[Any]
  checkpoints: checkpoint.Checkpoints
  reporter: metric_writer.Reporter
  notice: preemption.Notice
  trace: profiler.Trace
  watch: Callable[[int, Any], None] | None

  def due(self, step: int, every: int) -> bool:
    """Returns whether something done every so many steps is due now."""
    return step % every == 0 or step == self.config.num_steps


def _train(
  run: _Run,
  state: Any,
  key: Key[Array, ""],
  steps: range,
  workdir: pathlib.Path,
) -> Any:
  """Takes `steps`, counted from 1, and returns the last state."""
  stage, config = run.stage, run.config
  checks = finite_checks.FiniteChecks(stage, workdir)
  clock = throughput.Throughput(stage)
  for step in steps:
    with clock.waiting():
      batch = next(run.iterator)
    args = state, sharding.shard_batch(stage.mesh, batch), key
    with run.trace.step(step):
      state, metrics = stage.step(*args, index=step - 1)
    checks.add(step, state, metrics)
    clock.count(args, step - 1, metrics)
    if step == steps[0]:
      metrics = checks.resolve()
      # Compiles it now, so that a save on preemption is quick.
      checks.check_state(step)
      run.notice.start()
      run.reporter.compiled(step, metrics)
      clock.restart()
    elif run.due(step, config.log_every):
      run.reporter.scalars(step, checks.resolve(), clock.window())
    if run.trace.ends(step):
      checks.resolve()
      with clock.paused():
        run.reporter.say(run.trace.finish())
    if run.watch is not None:
      with clock.paused():
        run.watch(step, state)
    stop, held_out = run.notice.should_stop(step), {}
    if run.due(step, config.evaluate_every) and not stop:
      checks.resolve()
      with clock.paused():
        held_out = validation.evaluate(
          stage, state, run.held_out(), step, run.reporter, run.notice
        )
      stop = run.notice.should_stop(step)
    if run.due(step, config.save_every) or stop or (held_out and config.best):
      checks.resolve()
      with clock.paused():
        # The metrics are of the parameters before the step: only this shows
        # that the state to save is finite.
        checks.check_state(step)
        run.checkpoints.save(step, state, run.iterator, held_out or None, stop)
    if stop:
      raise run.notice.preempted(step, workdir)
  return state
