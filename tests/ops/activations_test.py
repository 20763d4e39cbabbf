"""The leaky ReLU keeps the variance; the normaliser gives unit mean square."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.ops import activations


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_leaky_relu_is_linear_on_either_side(self):
    x = jnp.array([-2.0, 0.0, 3.0])
    want = np.sqrt(2) * np.array([-0.4, 0.0, 3.0])
    # float32 rounding of one product.
    np.testing.assert_allclose(
      self.variant(activations.leaky_relu)(x), want, rtol=1e-6
    )

  @chex.variants(with_jit=True, without_jit=True)
  def test_normalised_vectors_have_unit_mean_square_at_any_scale(self):
    scale = 10.0 ** jnp.arange(-1, 4).reshape(5, 1)
    x = scale * jax.random.normal(jax.random.key(0), (5, 16))
    y = self.variant(activations.normalize_second_moment)(x)
    # 1e-8 under the root is 1e-6 of the smallest mean square here.
    np.testing.assert_allclose(jnp.mean(jnp.square(y), -1), 1, rtol=1e-5)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  for activate in (
    activations.leaky_relu,
    activations.normalize_second_moment,
    activations.softplus,
  ):
    chex.assert_tree_all_finite(
      jax.value_and_grad(lambda x, f=activate: jnp.sum(f(x)))(
        jnp.full((2, 3), extreme)
      )
    )


def test_leaky_relu_keeps_the_mean_square_of_noise():
  x = jax.random.normal(jax.random.key(0), (100_000,))
  square = jnp.mean(jnp.square(activations.leaky_relu(x)))
  # 2 * (1 + 0.2^2) / 2 = 1.04; the error of 1e5 samples is under 1 %.
  np.testing.assert_allclose(square, 1.04, rtol=0.02)


class SoftplusTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_softplus_and_its_gradients_are_those_of_jax(self):
    x = jnp.linspace(-30.0, 30.0, 61)

    def derivatives(function):
      first = jax.grad(lambda x: jnp.sum(function(x)))
      second = jax.grad(lambda x: jnp.sum(first(x)))
      return function(x), first(x), second(x)

    ours = self.variant(lambda: derivatives(activations.softplus))()
    # float32 rounding of one exponential.
    for a, b in zip(ours, derivatives(jax.nn.softplus), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
