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
