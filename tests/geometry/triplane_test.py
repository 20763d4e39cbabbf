"""Points find their features on the three planes."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.geometry import triplane


def _grid_sample(plane, x, y):
  """Bilinear, zeros outside, pixel edges at -1 and 1; float64 and slow."""
  height, width, _ = plane.shape
  px, py = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
  total = np.zeros(plane.shape[-1])
  for dx, dy in itertools.product((0, 1), (0, 1)):
    i, j = int(np.floor(px)) + dx, int(np.floor(py)) + dy
    if 0 <= i < width and 0 <= j < height:
      total += plane[j, i] * (1 - abs(px - i)) * (1 - abs(py - j))
  return total


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_lookup_agrees_with_float64_inside_at_the_edge_and_outside(self):
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(2, 3, 5, 8, 2)).astype(np.float32)
    uv = rng.uniform(-1.4, 1.4, (2, 3, 40, 2)).astype(np.float32)
    uv[..., :4, :] = np.array([[-1, -1], [1, 1], [9, 0], [-1e9, 1e9]])
    got = self.variant(
      lambda planes, uv: triplane.lookup(triplane.border(planes), uv)
    )(jnp.asarray(planes), jnp.asarray(uv))
    for b, n in itertools.product(range(2), range(40)):
      want = sum(
        _grid_sample(planes[b, p].astype(np.float64), *uv[b, p, n])
        for p in range(3)
      )
      # The pixel coordinate is near 8 and rounds at 1e-6.
      np.testing.assert_allclose(got[b, n], want, atol=2e-5)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(
    ("fixed", [[1, 2], [1, 3], [2, 3]]), ("eg3d", [[1, 2], [1, 3], [3, 1]])
  )
  def test_a_point_projects_to_two_of_its_coordinates(self, layout, want):
    point = jnp.array([[[1.0, 2.0, 3.0]]])
    project = self.variant(lambda x: triplane.project(x, layout=layout))
    np.testing.assert_array_equal(project(point)[0, :, 0], want)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(planes, points):
    uv = triplane.project(points)
    return jnp.sum(triplane.lookup(triplane.border(planes), uv))

  gradients = jax.jit(jax.value_and_grad(total, (0, 1)))
  planes, points = jnp.ones((1, 3, 4, 6, 2)), jnp.full((1, 5, 3), extreme)
  chex.assert_tree_all_finite(gradients(planes, points))
  chex.assert_tree_all_finite(gradients(extreme * planes, 1e-5 * points))


def test_the_first_coordinate_counts_columns():
  ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 9)[None, :], (9, 9))
  planes = jnp.stack([ramp, ramp.T], -1)[None, None]
  # Pixel centres of 9 span [-8/9, 8/9].
  got = triplane.lookup(triplane.border(planes), jnp.array([[[[0.4, -0.2]]]]))
  np.testing.assert_allclose(got[0, 0], [0.45, -0.225], rtol=1e-5)


def test_gradient_of_the_planes_is_the_transpose_of_the_lookup():
  keys = jax.random.split(jax.random.key(0), 4)
  planes = jax.random.normal(keys[0], (1, 3, 4, 6, 2))
  other = jax.random.normal(keys[1], planes.shape)
  uv = jax.random.uniform(keys[2], (1, 3, 9, 2), minval=-1.2, maxval=1.2)
  weight = jax.random.normal(keys[3], (1, 9, 2))

  def loss(planes):
    return jnp.vdot(triplane.lookup(triplane.border(planes), uv), weight)

  # The lookup is linear in the planes.
  np.testing.assert_allclose(
    jnp.vdot(jax.grad(loss)(planes), other), loss(other), rtol=1e-4
  )


def test_unknown_layouts_are_refused():
  with pytest.raises(ValueError, match="layout='zyx'"):
    triplane.project(jnp.zeros((1, 3)), layout="zyx")
