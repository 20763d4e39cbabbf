"""Keys with names."""

import jax
import numpy as np

from pir_jax.runtime import prng


def test_names_and_steps_give_different_keys_and_the_same_ones_again():
  key = jax.random.key(0)
  draws = {
    (name, step): float(
      jax.random.uniform(prng.named(prng.at_step(key, step), name))
    )
    for name in ("render", "crop")
    for step in range(3)
  }
  assert len(set(draws.values())) == 6
  again = jax.random.uniform(prng.named(prng.at_step(key, 2), "crop"))
  np.testing.assert_equal(float(again), draws["crop", 2])


def test_keys_that_are_cheap_to_compile_are_as_many_and_as_random():
  keys = [jax.random.key(seed) for seed in range(3)]
  keys += [prng.named(keys[0], "render"), prng.named(keys[0], "crop")]
  draws = [
    np.asarray(jax.random.normal(prng.cheap_to_compile(key), (1000,)))
    for key in keys
  ]
  again = jax.random.normal(prng.cheap_to_compile(keys[0]), (1000,))
  np.testing.assert_array_equal(draws[0], again)
  # Correlations of 1000 independent samples: a std of 0.03.
  np.testing.assert_allclose(np.corrcoef(draws), np.eye(len(keys)), atol=0.15)
