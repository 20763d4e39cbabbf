"""Rays cover the window exactly and have unit length."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.geometry import rays
from pir_jax.types import Cameras


def _camera(focal=2.0):
  k = jnp.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])
  return Cameras(jnp.eye(4)[None], k[None])


def test_pixel_centres_run_row_by_row():
  want = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
  np.testing.assert_allclose(rays.pixel_centres(2), want)


def test_identity_camera_looks_along_z_with_y_down():
  lines = rays.cast(_camera(), 2)
  # (u - 0.5) / 2 = -+0.125 at depth 1.
  want = np.array([[-1, -1, 8], [1, -1, 8], [-1, 1, 8], [1, 1, 8]])
  want = want / np.linalg.norm(want, axis=-1, keepdims=True)
  np.testing.assert_allclose(lines.directions[0], want, atol=1e-6)
  np.testing.assert_array_equal(lines.origins, 0)


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_a_finer_grid_sees_the_same_window(self):
    coarse, fine = (
      self.variant(lambda view, r=r: rays.cast(view, r))(_camera())
      for r in (4, 8)
    )
    tangents = [d[:, :2] / d[:, 2:] for d in (coarse[1][0], fine[1][0])]
    blocks = tangents[1].reshape(4, 2, 4, 2, 2).mean((1, 3)).reshape(16, 2)
    np.testing.assert_allclose(blocks, tangents[0], atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_depth_is_distance_along_the_ray(self):
    lines = rays.cast(_camera(), 3)
    along = self.variant(rays.points_along)
    points = along(lines, jnp.full((1, 9, 2), 2.5))
    distance = np.linalg.norm(points, axis=-1)
    np.testing.assert_allclose(distance, 2.5, rtol=1e-6)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(window, intrinsics, depths):
    view = _camera()._replace(intrinsics=intrinsics)
    return jnp.sum(rays.points_along(rays.through(view, window), depths))

  window, depths = jnp.full((2, 2), extreme), jnp.full((1, 2, 3), extreme)
  # Skewed as much, and nearly without a focal length.
  intrinsics = _camera(focal=1e-3).intrinsics.at[:, 0, 1].set(extreme)
  chex.assert_tree_all_finite(
    jax.jit(jax.value_and_grad(total, (0, 1, 2)))(window, intrinsics, depths)
  )
