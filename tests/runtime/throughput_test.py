"""The clock of a run: true times, and no figure that is not known."""

import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.runtime import chips, sharding, throughput

SIZE = 16


def stage(num_devices=1):
  def step(state, batch, key, *, index):
    found = {"loss": (batch @ state).sum()}
    if index % 2:  # A phase that does twice as much again.
      found["penalty"] = (batch @ state @ state).sum()
    return state, found

  mesh = sharding.make_mesh(devices=jax.devices()[:num_devices])
  return types.SimpleNamespace(mesh=mesh, step=step)


def take(clock, made, num_steps, seconds=0.0):
  given = jnp.ones((SIZE, SIZE)), jnp.ones((4, SIZE)), jax.random.key(0)
  for index in range(num_steps):
    _, values = made.step(*given, index=index)
    clock.count(given, index, values)
    time.sleep(seconds)


def test_utilisation_is_the_work_of_all_phases_over_the_peak(monkeypatch):
  peak = 1e9
  chip = chips.Chip("of this test", peak, 1, 1.0)
  monkeypatch.setattr(chips, "find", lambda kind: chip)
  made = stage(num_devices=2)
  clock = throughput.Throughput(made)
  take(clock, made, 4)
  found = clock.window()
  # Four products of (4, n) and (n, n); two steps have two more of them each.
  work = (4 + 2 * 2) * 2 * 4 * SIZE**2
  seconds = 4 * found["step_seconds"]
  np.testing.assert_allclose(found["mfu"], work / seconds / 2 / peak, rtol=1e-6)


def test_utilisation_is_left_out_where_the_peak_is_not_known():
  made = stage()
  clock = throughput.Throughput(made)
  take(clock, made, 2)
  found = clock.window()
  assert "mfu" not in found
  assert found["process_memory_gib"] > 0.01


def test_steps_are_timed_without_what_is_no_step():
  made = stage(num_devices=2)
  clock = throughput.Throughput(made)
  with clock.paused():
    time.sleep(1.0)
  with clock.waiting():
    time.sleep(0.1)
  take(clock, made, 5, seconds=0.02)
  found = clock.window()
  # Less than with the pause, which alone makes 0.2 s of each of five steps.
  assert 0.04 <= found["step_seconds"] < 0.2
  assert found["data_wait_seconds"] >= 0.02
  assert found["examples_per_second_per_device"] == pytest.approx(
    4 / found["step_seconds"] / 2
  )


def test_a_window_begins_anew():
  made = stage()
  clock = throughput.Throughput(made)
  with clock.waiting():
    time.sleep(0.05)
  take(clock, made, 1)
  clock.window()
  take(clock, made, 2)
  assert clock.window()["data_wait_seconds"] == 0.0
