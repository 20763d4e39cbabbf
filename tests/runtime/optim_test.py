"""Schedules and averages."""

import jax.numpy as jnp
import numpy as np

from pir_jax.runtime import optim


def test_rate_warms_up_stays_and_falls_to_its_last_value():
  config = optim.Config(
    learning_rate=2.0, warmup_steps=10, decay_start=0.5, final_scale=0.1
  )
  rate = optim.schedule(config, 100)
  assert float(rate(0)) == np.float32(0.2)
  assert float(rate(9)) == 2.0
  assert float(rate(50)) == 2.0
  np.testing.assert_allclose(float(rate(75)), 2.0 * (1 - 0.9 * 0.5), rtol=1e-6)
  np.testing.assert_allclose(float(rate(1000)), 0.2, rtol=1e-6)


def test_clipped_gradients_move_no_further_than_their_direction():
  config = optim.Config(learning_rate=1.0, clip_norm=1.0)
  optimizer = optim.build(config, 10)
  params = {"w": jnp.zeros(2)}
  updates, _ = optimizer.update(
    {"w": jnp.array([3e6, 4e6])}, optimizer.init(params), params
  )
  # Adam's first step has size learning_rate in every coordinate.
  np.testing.assert_allclose(updates["w"], [-1.0, -1.0], rtol=1e-4)


def test_average_of_a_constant_is_the_constant():
  params = {"w": jnp.full(3, 5.0)}
  ema = {"w": jnp.zeros(3)}
  for step in range(500):
    ema = optim.ema_update(ema, params, 0.9, step)
  np.testing.assert_allclose(ema["w"], 5.0, rtol=1e-5)


def test_lazy_steps_make_k_and_one_steps_as_long_as_k():
  config = optim.Config(learning_rate=0.1, b1=0.5, b2=0.9, warmup_steps=8)
  lazy = optim.with_lazy_steps(config, 4)
  # StyleGAN2: rates times k / (k + 1), decays to its power.
  np.testing.assert_allclose(5 * lazy.learning_rate, 4 * config.learning_rate)
  np.testing.assert_allclose(lazy.b1**5, config.b1**4)
  np.testing.assert_allclose(lazy.b2**5, config.b2**4)
  assert lazy.warmup_steps == 10
  assert config.learning_rate == 0.1
