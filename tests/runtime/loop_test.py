"""The loop: exact resume, whole checkpoints, a sentence for NaN."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.runtime import checkpoint, loop, optim, prng, sharding
from pir_jax.stages import base
from pir_jax.types import InputError


class Line(base.Stage):
  """Fits a slope to noisy points: the least that is a stage."""

  name = "line"

  def __init__(self, poison: int | None = None):
    super().__init__(sharding.make_mesh(devices=jax.devices()[:1]), {})
    self._poison = poison
    self._optimizer = optim.build(optim.Config(learning_rate=0.1), 100)
    self._train = self.compile_step(self._phase)

  def init_state(self, key):
    params = {"slope": jax.random.normal(key, ())}
    net = base.NetState(params, {}, self._optimizer.init(params))
    return base.TrainState(jnp.int32(0), {"line": net}, {"line": params})

  def step(self, state, batch, key, *, index):
    state, metrics = self._train(state, batch, prng.at_step(key, index))
    if index == self._poison:
      metrics = {**metrics, "error": jnp.float32(np.nan)}
    return state, metrics

  def evaluate(self, state, batch, key):
    return {"slope": state.ema["line"]["slope"]}

  def _phase(self, state, frozen, batch, key):
    net = state.nets["line"]
    noise = 0.1 * jax.random.normal(key, batch.shape)

    def objective(params):
      error = params["slope"] * batch - 3.0 * batch + noise
      return base.total({"error": error**2}, {"error": 1.0})

    gradients, metrics = jax.grad(objective, has_aux=True)(net.params)
    net = base.update(net, gradients, self._optimizer)
    return base.advance(state, {"line": net}, 0.9), metrics


def batches():
  return (
    grain.MapDataset.source(np.linspace(0.1, 1, 7, dtype=np.float32))
    .seed(3)
    .shuffle()
    .repeat()
    .batch(4)
    .to_iter_dataset()
  )


def run(workdir, num_steps, poison=None):
  config = loop.Config(num_steps=num_steps, save_every=5, log_every=5)
  return loop.fit(Line(poison), config, batches(), list, workdir, seed=1)


def test_stopped_and_resumed_is_bit_identical(tmp_path):
  whole = run(tmp_path / "whole", 20)
  run(tmp_path / "parts", 11)
  parts = run(tmp_path / "parts", 20)
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  assert int(parts.step) == 20


def test_finished_run_is_not_trained_further(tmp_path):
  first = run(tmp_path, 6)
  again = run(tmp_path, 6)
  jax.tree.map(np.testing.assert_array_equal, first, again)


def test_training_moves_towards_the_answer(tmp_path):
  state = run(tmp_path, 100)
  # Noise of 0.1 on points of about 0.5 leaves the slope within a few tenths.
  assert abs(float(state.nets["line"].params["slope"]) - 3.0) < 0.5


def test_nan_stops_with_the_name_and_keeps_the_last_good_state(tmp_path):
  with pytest.raises(InputError, match="error is nan at step 10"):
    run(tmp_path, 20, poison=9)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest() == 5
  checkpoints.close()


def test_a_directory_that_is_no_run_is_named(tmp_path):
  with pytest.raises(InputError, match="is not a training run"):
    checkpoint.read_record(tmp_path)
