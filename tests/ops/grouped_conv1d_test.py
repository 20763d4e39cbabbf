"""A long grouped convolution: both ways are the direct sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import grouped_conv1d

WAYS = (grouped_conv1d.by_transforms, grouped_conv1d.by_taps)


def direct(x, kernel):
  """In float64, tap by tap."""
  taps, size, _ = kernel.shape
  groups = x.shape[-1] // size
  before = taps // 2
  padded = np.pad(x, ((0, 0), (before, taps - 1 - before), (0, 0)))
  y = np.zeros(x.shape)
  for k in range(taps):
    seen = padded[:, k : k + x.shape[1]]
    for g in range(groups):
      part = slice(g * size, (g + 1) * size)
      y[..., part] += seen[..., part] @ kernel[k][:, part]
  return y


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("taps", "frames"), [(16, 40), (5, 3), (8, 1), (9, 9)])
def test_it_is_the_direct_sum(way, taps, frames):
  rng = np.random.default_rng(taps)
  x, kernel = rng.normal(size=(2, frames, 6)), rng.normal(size=(taps, 3, 6))
  found = jax.jit(way)(jnp.float32(x), jnp.float32(kernel))
  # Sums of up to 48 products of order 1 in float32.
  np.testing.assert_allclose(found, direct(x, kernel), atol=2e-5)


def test_both_ways_have_the_same_gradients():
  rng = np.random.default_rng(0)
  x, kernel, weight = (
    jnp.float32(rng.normal(size=shape))
    for shape in ((2, 12, 4), (8, 2, 4), (2, 12, 4))
  )

  def gradients(way):
    return jax.jit(
      jax.grad(lambda x, k: jnp.sum(way(x, k) * weight), argnums=(0, 1))
    )(x, kernel)

  want = gradients(grouped_conv1d.by_transforms)
  for way in (grouped_conv1d.by_taps, grouped_conv1d.correlate):
    for a, b in zip(gradients(way), want, strict=True):
      np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_gradient_remembers_only_what_is_given():
  x, kernel = jnp.ones((2, 40, 4)), jnp.ones((16, 2, 4))
  _, pull = jax.eval_shape(
    lambda x, k: jax.vjp(grouped_conv1d.correlate, x, k), x, kernel
  )
  sizes = sum(leaf.size for leaf in jax.tree.leaves(pull))
  assert sizes <= x.size + kernel.size
