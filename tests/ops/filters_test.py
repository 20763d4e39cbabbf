"""The low-pass filter against StyleGAN2's numbers and its own laws."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import filters

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


def _channels_last(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(
    ("up", filters.upsample2, "upsample2d"),
    ("down", filters.downsample2, "downsample2d"),
    ("blur", filters.blur, "filter2d"),
  )
  def test_agrees_with_stylegan2(self, function, name):
    golden = np.load(GOLDENS / "stylegan2_ops.npz")
    got = self.variant(function)(_channels_last(golden["x"]))
    # Sums of 16 float32 products in another order.
    np.testing.assert_allclose(got, _channels_last(golden[name]), atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_phases_are_those_of_the_blurred_axis(self):
    x = jax.random.normal(jax.random.key(0), (1, 9, 3, 2))
    even, odd = self.variant(
      lambda even, odd: filters.blur_phases(even, odd, axis=1)
    )(x[:, 1::2], x[:, ::2])
    want = 2 * filters._blur_axis(x, 1, 1, 1)
    # The same four products in another order.
    np.testing.assert_allclose(
      jnp.stack([even, odd], 2).reshape(1, 8, 3, 2), want, rtol=1e-5, atol=1e-6
    )

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(0.0, 0.3, 0.5, 1.7)
  def test_gaussian_agrees_with_a_float64_sum(self, sigma):
    x = np.random.default_rng(0).normal(size=(1, 9, 7, 2))
    radius = int(np.floor(3 * sigma))
    steps = np.arange(-radius, radius + 1)
    weights = np.exp2(-np.square(steps / sigma)) if sigma else np.ones(1)
    weights /= weights.sum()
    want = x
    for axis in (1, 2):
      want = np.apply_along_axis(np.convolve, axis, want, weights, "same")
      # numpy's "same" is as long as the longer of the two.
      start = (want.shape[axis] - x.shape[axis]) // 2
      want = np.take(want, np.arange(start, start + x.shape[axis]), axis)
    blur = self.variant(filters.gaussian_blur)
    got = blur(jnp.asarray(x, jnp.float32), jnp.float32(sigma))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  for function in (filters.blur, filters.upsample2, filters.downsample2):
    chex.assert_tree_all_finite(
      jax.value_and_grad(lambda x, f=function: jnp.sum(f(x)))(
        jnp.full((1, 4, 4, 1), extreme)
      )
    )
  total = jax.value_and_grad(
    lambda *args: jnp.sum(filters.gaussian_blur(*args))
  )
  chex.assert_tree_all_finite(
    total(jnp.full((1, 4, 4, 1), extreme), abs(extreme))
  )


@pytest.mark.parametrize(
  "function", [filters.upsample2, filters.downsample2, filters.blur]
)
def test_a_constant_stays_that_constant_inside(function):
  inside = function(jnp.full((1, 12, 12, 2), 3.0))[:, 3:-3, 3:-3]
  np.testing.assert_allclose(inside, 3.0, rtol=1e-6)


def test_upsampling_is_the_transpose_of_downsampling():
  x = jax.random.normal(jax.random.key(0), (1, 6, 8, 2))
  y = jax.random.normal(jax.random.key(1), (1, 12, 16, 2))
  # Four output pixels per input pixel: the gains differ by 4.
  np.testing.assert_allclose(
    jnp.vdot(filters.upsample2(x), y),
    4 * jnp.vdot(x, filters.downsample2(y)),
    rtol=1e-5,
  )


def test_odd_sizes_cannot_be_halved():
  with pytest.raises(ValueError, match="must be even"):
    filters.downsample2(jnp.zeros((1, 5, 4, 1)))
