"""Pixel losses at points computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.losses import pixel


def _pair():
  image = jnp.zeros((2, 2, 2, 3))
  target = image.at[0, 0, 0].set(jnp.array([3.0, 0.0, 0.0])).at[1].set(-2.0)
  return image, target


def test_l1_is_the_mean_of_each_example():
  np.testing.assert_allclose(pixel.l1(*_pair()), [3 / 12, 2], rtol=1e-6)


def test_constant_weight_gives_l1_whatever_its_size():
  for weight in (1.0, 5.0):
    value = pixel.weighted_l1(*_pair(), jnp.full((2, 2, 2, 1), weight))
    np.testing.assert_allclose(value, pixel.l1(*_pair()), rtol=1e-6)


def test_mask_counts_only_what_it_covers():
  mask = jnp.zeros((2, 2, 2, 1)).at[:, 0, 0].set(1)
  value = pixel.weighted_l1(*_pair(), mask)
  np.testing.assert_allclose(value, [1, 2], rtol=1e-6)


def test_empty_mask_costs_nothing_and_has_a_finite_gradient():
  image, target = _pair()
  mask = jnp.zeros((2, 2, 2, 1)).at[1].set(1)
  np.testing.assert_allclose(
    pixel.weighted_l1(image, target, mask), [0, 2], rtol=1e-6
  )
  gradient = jax.grad(lambda m: pixel.weighted_l1(image, target, m).sum())
  assert np.isfinite(gradient(mask)).all()
