"""Volume rendering: limiting cases, a float64 reference, the two-pass merge."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.geometry import compositing


def _samples(seed=0, num=12, rays=5):
  rng = np.random.default_rng(seed)
  depths = np.sort(rng.uniform(2, 3, (rays, num)), -1)
  arrays = (rng.uniform(0, 1, (rays, num, 3)), rng.normal(2, 2, (rays, num)))
  return tuple(jnp.asarray(x, jnp.float32) for x in (*arrays, depths))


def _reference(colors, densities, depths):
  """The sum over intervals, one after the other, in float64."""
  c, s, z = (np.asarray(x, np.float64) for x in (colors, densities, depths))
  feature, depth, total, light = np.zeros(c.shape[-1]), 0.0, 0.0, 1.0
  for i in range(len(z) - 1):
    density = np.logaddexp(0, 0.5 * (s[i] + s[i + 1]) - 1)
    alpha = 1 - np.exp(-density * (z[i + 1] - z[i]))
    feature += light * alpha * 0.5 * (c[i] + c[i + 1])
    depth += light * alpha * 0.5 * (z[i] + z[i + 1])
    total += light * alpha
    light *= 1 - alpha
  return feature, depth / total, total


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_render_agrees_with_float64(self):
    samples = _samples()
    got = self.variant(compositing.render)(*samples)
    for i in range(5):
      want = _reference(*(x[i] for x in samples))
      for a, b in zip(got, want, strict=True):
        # A dozen float32 products near 1.
        np.testing.assert_allclose(a[i], b, rtol=1e-5)

  @chex.variants(with_jit=True, without_jit=True)
  def test_two_passes_render_as_their_sorted_union(self):
    first, second = _samples(0), _samples(1, num=9)
    both = [jnp.concatenate(x, 1) for x in zip(first, second, strict=True)]
    order = jnp.argsort(both[2], -1)

    def union(colors, densities):
      return compositing.render(
        jnp.take_along_axis(colors, order[..., None], 1),
        jnp.take_along_axis(densities, order, 1),
        jnp.take_along_axis(both[2], order, 1),
      )

    def merged(colors, densities):
      return compositing.render_merged(
        (colors[:, :12], colors[:, 12:]),
        (densities[:, :12], densities[:, 12:]),
        (first[2], second[2]),
      )

    def with_gradients(render):
      def total(*args):
        result = render(*args)
        return sum(jnp.sum(jnp.square(x)) for x in result), result

      return jax.grad(total, (0, 1), has_aux=True)

    got = self.variant(with_gradients(merged))(*both[:2])
    want = jax.jit(with_gradients(union))(*both[:2])
    # The same sums in another order.
    chex.assert_trees_all_close(got, want, atol=2e-5)


def test_empty_space_shows_nothing_at_the_far_end():
  colors, _, depths = _samples()
  got = compositing.render(colors, jnp.full_like(depths, -1e4), depths)
  np.testing.assert_array_equal(got.feature, 0)
  np.testing.assert_array_equal(got.weight_sum, 0)
  np.testing.assert_array_equal(got.depth, depths[:, -1])


def test_an_opaque_wall_shows_its_colour_at_its_depth():
  depths = jnp.linspace(2.0, 3.0, 41)
  wall = depths >= 2.5
  densities = jnp.where(wall, 1e5, -1e6)
  colors = jnp.where(wall[:, None], jnp.array([0.2, 0.4, 0.9]), 0.5)
  got = compositing.render(colors, densities, depths)
  np.testing.assert_allclose(got.feature, [0.2, 0.4, 0.9], rtol=1e-5)
  np.testing.assert_allclose(got.weight_sum, 1, rtol=1e-6)
  assert abs(float(got.depth) - 2.5) < 0.025  # One interval.


def test_weights_never_sum_to_more_than_one():
  _, densities, depths = _samples(num=40, rays=50)
  total = jnp.sum(compositing.interval_weights(5 * densities, depths), -1)
  assert np.all(total <= 1 + 1e-6)  # Rounding of a sum of 39.


@pytest.mark.parametrize("level", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_gradients_are_finite_at_extreme_densities(level):
  colors, densities, depths = _samples()

  @jax.jit
  def gradients(*samples):
    return jax.value_and_grad(
      lambda *samples: sum(map(jnp.sum, compositing.render(*samples))),
      (0, 1, 2),
    )(*samples)

  densities += level
  chex.assert_tree_all_finite(gradients(colors, densities, depths))
  # A ray without length: all of its samples at one point.
  chex.assert_tree_all_finite(
    gradients(colors, densities, jnp.full_like(depths, 2.5))
  )


def test_ends_of_an_interval_share_its_weight():
  got = compositing.sample_weights(jnp.array([0.2, 0.6]))
  np.testing.assert_allclose(got, [0.1, 0.4, 0.3], rtol=1e-6)


def test_merge_order_sorts_and_its_inverse_undoes_it():
  rng = np.random.default_rng(0)
  first, second = (
    jnp.asarray(np.sort(rng.integers(0, 9, (6, n)), -1), jnp.float32)
    for n in (7, 5)
  )
  order, inverse = compositing.merge_order(first, second)
  both = np.concatenate([first, second], -1)
  # Stable: equal depths keep their order, as in a stable sort.
  np.testing.assert_array_equal(order, np.argsort(both, -1, kind="stable"))
  np.testing.assert_array_equal(
    np.take_along_axis(np.asarray(order), np.asarray(inverse), -1),
    np.broadcast_to(np.arange(12), (6, 12)),
  )
