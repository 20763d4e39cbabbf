"""Linear resampling keeps the ends and is what numpy.interp says."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import interpolation


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(before=[1, 2, 19, 199], after=[1, 2, 10, 250])
  def test_equals_numpy_interp(self, before, after):
    x = np.random.default_rng(0).normal(size=(2, before, 3))
    places = np.linspace(0, before - 1, after) if after > 1 else [0]
    want = [
      [np.interp(places, np.arange(before), row[:, c]) for c in range(3)]
      for row in x
    ]
    got = self.variant(lambda x: interpolation.resample_linear(x, after))(
      jnp.asarray(x, jnp.float32)
    )
    # A place of up to 200 in float32 is off by 1e-5, times a slope of a few.
    np.testing.assert_allclose(
      got, np.swapaxes(want, 1, 2), rtol=1e-5, atol=1e-4
    )

  @chex.variants(with_jit=True, without_jit=True)
  def test_neighbours_are_the_frames_around(self):
    x = jnp.arange(5.0).reshape(1, 5, 1)
    stack = self.variant(lambda x: interpolation.stack_neighbours(x, 1))
    np.testing.assert_array_equal(
      stack(x)[0], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    )
    np.testing.assert_array_equal(interpolation.stack_neighbours(x, 0), x)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  x = jnp.full((2, 7, 1), extreme)
  lengths = jnp.array([7, 0])  # The second row is nothing but padding.

  def total(x):
    y = interpolation.resample_linear(
      x, 9, lengths=lengths, new_lengths=lengths
    )
    return jnp.sum(interpolation.stack_neighbours(y, 2))

  chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(total))(x))


def test_same_length_changes_nothing():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50, 2)), jnp.float32)
  np.testing.assert_array_equal(interpolation.resample_linear(x, 50), x)


def test_padding_changes_nothing():
  x = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
  whole = interpolation.resample_linear(jnp.asarray(x[1:, :12]), 6)
  padded = interpolation.resample_linear(
    jnp.asarray(x),
    10,
    lengths=jnp.array([20, 12]),
    new_lengths=jnp.array([10, 6]),
  )
  np.testing.assert_array_equal(padded[1, :6], whole[0])
  np.testing.assert_array_equal(padded[1, 6:], np.tile(x[1, 11], (4, 1)))


def test_gradient_is_the_weight_of_each_frame():
  gradient = jax.grad(
    lambda x: jnp.sum(interpolation.resample_linear(x, 3)[:, 1])
  )(jnp.zeros((1, 4, 1)))
  np.testing.assert_allclose(gradient[0, :, 0], [0, 0.5, 0.5, 0])


def test_nothing_to_resample_is_refused():
  with pytest.raises(ValueError, match="cannot resample 0 frames to 3"):
    interpolation.resample_linear(jnp.zeros((1, 0, 2)), 3)
