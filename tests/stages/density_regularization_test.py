"""Density variation of a field whose differences are known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pir_jax.stages import conditioning, density_regularization


class Ramp(nnx.Module):
  """A generator whose density rises evenly, faster for each example."""

  config = types.SimpleNamespace(renderer=types.SimpleNamespace(box_warp=2.0))

  def map(self, identity, expression):
    return identity[:, 0]

  def planes(self, slope, *, key):
    return slope

  def density(self, slope, points):
    assert float(jnp.abs(points).max()) < 1.05  # The box, and a step beyond.
    return slope[:, None] * points[..., 1]


def test_variation_is_the_mean_absolute_step_of_each_example():
  slopes = jnp.array([[0.0], [1.0], [-3.0]])
  conditions = conditioning.Inputs(
    slopes, jnp.zeros((3, 1)), jnp.zeros((3, 25))
  )
  got = density_regularization.density_variation(
    Ramp(), conditions, jax.random.key(0)
  )
  # A normal's mean absolute value, of std 0.004 of the box's side.
  step = 0.004 * 2.0 * np.sqrt(2 / np.pi)
  # 1000 points: the std of the mean is 2.4%.
  np.testing.assert_allclose(got, [0, step, 3 * step], rtol=0.08)
