"""The stopwatch: what it calls, how often, and what it says of a program."""

import time

import jax
import jax.numpy as jnp
import pytest

from pir_jax.profiling import stopwatch

SIDE = 32
MATRIX = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)


def test_the_first_call_is_not_timed_and_results_are_carried_on():
  seen = []

  def step(count):
    seen.append(count)
    time.sleep(0.2 if count == 0 else 0.01)
    return count + 1

  timing, last = stopwatch.clock(step, 0, 3)
  assert seen == [0, 1, 2, 3]
  assert last == 4
  assert len(timing.seconds) == 3
  assert timing.least >= 0.01
  # Were the slow first call among them, one would be 0.2 s.
  assert timing.median < 0.2


def test_median_and_least():
  timing = stopwatch.Timing((5.0, 1.0, 2.0))
  assert (timing.median, timing.least) == (2.0, 1.0)


def test_no_repeats_are_refused():
  with pytest.raises(ValueError, match="at least 1"):
    stopwatch.clock(lambda x: x, 0, 0)


def test_a_program_runs_and_its_operations_are_counted():
  program = stopwatch.build(jax.jit(jnp.matmul).trace(MATRIX, MATRIX))
  eye, two = jnp.eye(SIDE), jnp.full((SIDE, SIDE), 2.0)
  assert (program.run(eye, two) == two).all()
  # A product and a sum for each of n^3 triples.
  assert program.flops == 2 * SIDE**3
  assert program.footprint.arguments == 2 * 4 * SIDE**2
  assert program.footprint.seconds > 0


def test_a_step_may_give_its_state_away():
  program = stopwatch.build(
    jax.jit(lambda x: x + 1, donate_argnums=0).trace(MATRIX)
  )
  _, last = stopwatch.clock(program.run, jnp.zeros((SIDE, SIDE)), 4)
  assert float(last[0, 0]) == 5  # Once to warm up, four times on the clock.
