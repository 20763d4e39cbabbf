"""Adversarial losses at points computed by hand, R1 against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.losses import adversarial

_LOGITS = jnp.array([[[0.0, 2.0]], [[1.0, 1.0]]])


def test_least_squares_is_the_squared_distance_to_the_label():
  real = adversarial.least_squares(_LOGITS, real=True)
  fake = adversarial.least_squares(_LOGITS, real=False)
  np.testing.assert_allclose(real, [1, 0])
  np.testing.assert_allclose(fake, [2, 1])


def test_non_saturating_is_minus_the_log_probability():
  probability = 1 / (1 + np.exp(-np.asarray(_LOGITS, np.float64)))
  # float32 exponentials.
  np.testing.assert_allclose(
    adversarial.non_saturating(_LOGITS, real=True),
    -np.log(probability).mean((1, 2)),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    adversarial.non_saturating(_LOGITS, real=False),
    -np.log(1 - probability).mean((1, 2)),
    rtol=1e-5,
  )


def test_non_saturating_pushes_hardest_where_the_discriminator_is_sure():
  gradient = jax.grad(lambda x: adversarial.non_saturating(x, real=True).sum())(
    jnp.array([[-1e4], [0.0], [1e4]])
  )
  np.testing.assert_allclose(gradient[:, 0], [-1, -0.5, 0], atol=1e-6)


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
  rng = np.random.default_rng(0)
  weight = jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32)
  image = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
  penalty = adversarial.r1_penalty(
    lambda x: jnp.einsum("bhwc,hwc->b", x, weight), image
  )
  # float32 sums of sixty squares.
  np.testing.assert_allclose(penalty, [jnp.sum(weight**2)] * 2, rtol=1e-5)


def test_r1_of_a_quadratic_discriminator_and_of_two_images():
  rng = np.random.default_rng(0)
  a, b = (
    jnp.asarray(rng.normal(size=(2, n, n, 3)), jnp.float32) for n in (4, 2)
  )

  def discriminator(images):
    large, small = images
    patch = jnp.sum(large**2, axis=(1, 2, 3)) / 2
    return patch[:, None] + jnp.stack([3 * small[:, 0, 0, 0]], axis=1)

  # Gradients: the large image itself, and 3 at one pixel of the small one.
  expected = jnp.sum(a**2, axis=(1, 2, 3)) + 9
  np.testing.assert_allclose(
    adversarial.r1_penalty(discriminator, (a, b)), expected, rtol=1e-5
  )


def test_r1_can_itself_be_learned_from():
  image = jnp.ones((1, 2, 2, 1))

  def loss(scale):
    return adversarial.r1_penalty(
      lambda x: scale * jnp.sum(x, axis=(1, 2, 3)), image
    )[0]

  # Four pixels: penalty 4 s^2, derivative 8 s.
  np.testing.assert_allclose(jax.grad(loss)(3.0), 24.0, rtol=1e-6)
