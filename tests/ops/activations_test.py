"""The leaky ReLU keeps the variance; the normaliser gives unit mean square."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.ops import activations


def test_leaky_relu_values():
  x = jnp.array([-2.0, 0.0, 3.0])
  want = np.sqrt(2) * np.array([-0.4, 0.0, 3.0])
  # float32 rounding of one product.
  np.testing.assert_allclose(activations.leaky_relu(x), want, rtol=1e-6)


def test_leaky_relu_keeps_the_mean_square_of_noise():
  x = jax.random.normal(jax.random.key(0), (100_000,))
  square = jnp.mean(jnp.square(activations.leaky_relu(x)))
  # 2 * (1 + 0.2^2) / 2 = 1.04; the sampling error of 1e5 draws is under 1 %.
  np.testing.assert_allclose(square, 1.04, rtol=0.02)


def test_normalised_vectors_have_unit_mean_square_at_any_scale():
  x = jax.random.normal(jax.random.key(0), (5, 16)) * 10.0 ** jnp.arange(
    -1, 4
  ).reshape(5, 1)
  y = activations.normalize_second_moment(x)
  # 1e-8 under the root is 1e-6 of the smallest mean square here.
  np.testing.assert_allclose(jnp.mean(jnp.square(y), -1), 1, rtol=1e-5)
