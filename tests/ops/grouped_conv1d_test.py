"""A long grouped convolution: both ways are the direct sum."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import grouped_conv1d

WAYS = (
  grouped_conv1d.by_transforms,
  grouped_conv1d.by_offsets,
  grouped_conv1d.correlate,
)


def direct(x, kernel):
  """Sums in float64, one kernel offset after the other."""
  length, size, _ = kernel.shape
  groups = x.shape[-1] // size
  before = length // 2
  padded = np.pad(x, ((0, 0), (before, length - 1 - before), (0, 0)))
  y = np.zeros(x.shape)
  for k in range(length):
    seen = padded[:, k : k + x.shape[1]]
    for g in range(groups):
      part = slice(g * size, (g + 1) * size)
      y[..., part] += seen[..., part] @ kernel[k][:, part]
  return y


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  # By name: workers must collect the same tests, and functions have addresses.
  @parameterized.product(
    way=[way.__name__ for way in WAYS], sizes=[(16, 40), (5, 3), (8, 1), (9, 9)]
  )
  def test_it_is_the_direct_sum(self, way, sizes):
    length, frames = sizes
    rng = np.random.default_rng(length)
    x, kernel = rng.normal(size=(2, frames, 6)), rng.normal(size=(length, 3, 6))
    got = self.variant(getattr(grouped_conv1d, way))(
      jnp.float32(x), jnp.float32(kernel)
    )
    # Sums of up to 48 products of order 1 in float32.
    np.testing.assert_allclose(got, direct(x, kernel), atol=2e-5)


def test_all_ways_have_the_same_gradients():
  rng = np.random.default_rng(0)
  x, kernel, weight = (
    jnp.float32(rng.normal(size=shape))
    for shape in ((2, 12, 4), (8, 2, 4), (2, 12, 4))
  )

  def gradients(way):
    return jax.jit(
      jax.grad(lambda x, k: jnp.sum(way(x, k) * weight), argnums=(0, 1))
    )(x, kernel)

  first, *others = map(gradients, WAYS)
  for other in others:
    chex.assert_trees_all_close(other, first, atol=2e-5)


@pytest.mark.parametrize("way", WAYS[:2])
def test_values_and_gradients_are_finite_at_extremes(way, extreme):
  total = jax.jit(jax.value_and_grad(lambda *x: jnp.sum(way(*x)), (0, 1)))
  x, kernel = jnp.full((1, 6, 4), extreme), jnp.ones((5, 2, 4))
  chex.assert_tree_all_finite((total(x, kernel), total(x, 1e4 * kernel)))


def test_the_gradient_keeps_only_the_inputs():
  x, kernel = jnp.ones((2, 40, 4)), jnp.ones((16, 2, 4))
  _, pull = jax.eval_shape(
    lambda x, k: jax.vjp(grouped_conv1d.correlate, x, k), x, kernel
  )
  sizes = sum(leaf.size for leaf in jax.tree.leaves(pull))
  assert sizes <= x.size + kernel.size
