"""Density variation of known fields."""

import jax.numpy as jnp
import numpy as np

from pir_jax.losses import regularisation


def test_density_variation_is_the_mean_step_of_each_example():
  density = jnp.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
  neighbours = jnp.array([[2.0, 0.0, 3.0], [5.0, 5.0, 5.0]])
  value = regularisation.density_variation(density, neighbours)
  np.testing.assert_allclose(value, [1, 0])
