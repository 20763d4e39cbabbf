"""Cameras: rotations are rotations, projection agrees with the rays."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from scipy.spatial.transform import Rotation

from pir_jax.geometry import cameras, rays
from pir_jax.types import Cameras


def _cameras(num_cameras=3):
  eyes = 2.7 * jnp.array([[0.1, 0.2, 1.0], [0.5, 0.0, 1.0], [-0.4, 0.3, 1.0]])
  zero = jnp.zeros((num_cameras, 3))
  up = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), (num_cameras, 3))
  k = jnp.array([[4.2, 0.1, 0.45], [0.0, 4.3, 0.55], [0.0, 0.0, 1.0]])
  return Cameras(
    cameras.look_at(eyes[:num_cameras], zero, up),
    jnp.broadcast_to(k, (num_cameras, 3, 3)),
  )


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_vector_round_trip_is_exact(self):
    want = _cameras()
    vector = self.variant(cameras.to_vector)(want)
    got = self.variant(cameras.from_vector)(vector)
    chex.assert_trees_all_equal(got, want)

  @chex.variants(with_jit=True, without_jit=True)
  def test_points_on_a_ray_project_to_its_pixel(self):
    views = _cameras()
    lines = rays.cast(views, 5)
    for distance in (0.5, 3.0):
      points = lines.origins + distance * lines.directions
      uv, depth = self.variant(cameras.project)(points, views)
      want = np.broadcast_to(rays.pixel_centres(5), uv.shape)
      # Coordinates near 1 after a few float32 products and a focal length of 4.
      np.testing.assert_allclose(uv, want, atol=1e-5)
      assert np.all(depth > 0)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(1e-8, 1e-3, 9e-3, 1.1e-2, 0.5, 3.0)
  def test_axis_angle_agrees_with_scipy(self, scale):
    vector = scale * np.array([[0.6, -0.8, 0.0], [0.36, 0.48, 0.8]])
    want = Rotation.from_rotvec(vector).as_matrix()
    got = self.variant(cameras.rotation_from_axis_angle)(
      jnp.asarray(vector, jnp.float32)
    )
    # float32 entries of size 1.
    np.testing.assert_allclose(got, want, atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_euler_agrees_with_scipy(self):
    angles = np.array([[0.3, -0.7, 0.2], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    want = Rotation.from_euler("xyz", angles).as_matrix()  # Rz Ry Rx.
    got = self.variant(cameras.rotation_from_euler)(
      jnp.asarray(angles, jnp.float32)
    )
    np.testing.assert_allclose(got, want, atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_orbit_agrees_with_look_at_and_starts_in_front(self):
    turn, nod = jnp.array([0.0, 0.7]), jnp.array([0.0, -0.5])
    pose = self.variant(cameras.orbit)(turn, nod, jnp.full(2, 2.7))
    np.testing.assert_allclose(pose[0, :3, 3], [0, 0, 2.7], atol=1e-6)
    up = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), (2, 3))
    want = self.variant(cameras.look_at)(pose[:, :3, 3], jnp.zeros((2, 3)), up)
    np.testing.assert_allclose(pose, want, atol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_a_moved_camera_sees_the_moved_world_as_before(self):
    rng = np.random.default_rng(0)
    pose = cameras.orbit(*(jnp.array([a]) for a in (0.3, -0.2, 2.5)))
    k = jnp.array([[[3.0, 0.1, 0.5], [0, 3.1, 0.4], [0, 0, 1.0]]])
    points = jnp.asarray(rng.uniform(-0.4, 0.4, (1, 6, 3)), jnp.float32)
    rotation = jnp.array([[0.2, -0.1, 0.3]])
    translation = jnp.array([[0.05, -0.02, 0.1]])
    matrix = cameras.rotation_from_axis_angle(rotation)
    elsewhere = points @ jnp.swapaxes(matrix, -1, -2) + translation[:, None]
    view = Cameras(pose, k)
    want, depth = cameras.project(points, view)
    got, same = cameras.project(
      elsewhere, self.variant(cameras.moved)(view, rotation, translation)
    )
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(same, depth, atol=1e-5)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  def total(vector):
    turned = cameras.rotation_from_axis_angle(vector)
    return jnp.sum(turned) + jnp.sum(cameras.rotation_from_euler(vector))

  gradient = jax.jit(jax.value_and_grad(total))
  chex.assert_tree_all_finite(gradient(jnp.full((2, 3), extreme)))
  # Straight above and below the head too, where `look_at` has no answer.
  orbit = jax.jit(jax.value_and_grad(lambda x: jnp.sum(cameras.orbit(*x))))
  for nod in (-np.pi / 2, extreme, np.pi / 2):
    chex.assert_tree_all_finite(orbit(jnp.array([extreme, nod, 2.7])))


def test_look_at_puts_the_target_on_the_axis_and_up_is_up():
  views = _cameras()._replace(
    intrinsics=jnp.broadcast_to(jnp.eye(3), (3, 3, 3))
  )
  points = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]])
  uv, depth = cameras.project(jnp.broadcast_to(points, (3, 2, 3)), views)
  np.testing.assert_allclose(uv[:, 0], 0, atol=1e-6)
  assert np.all(uv[:, 1, 1] < 0)  # Rows count downwards.
  np.testing.assert_allclose(
    depth[:, 0], jnp.linalg.norm(views.pose[:, :3, 3], axis=-1), rtol=1e-6
  )


def test_axis_angle_gradient_at_zero_is_the_cross_product():
  jacobian = jax.jacobian(cameras.rotation_from_axis_angle)(jnp.zeros(3))
  want = np.zeros((3, 3, 3))
  for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    want[i, j, k], want[j, i, k] = -1, 1
  np.testing.assert_allclose(jacobian, want, atol=1e-7)


@pytest.mark.parametrize("nod", [-0.4, 0.0, 0.3, np.pi / 2])
def test_orbit_looks_at_the_origin_from_the_angle(nod):
  turn = jnp.linspace(-np.pi, np.pi, 9)
  nods, distance = jnp.full(9, nod), jnp.linspace(2.0, 3.0, 9)
  pose = cameras.orbit(turn, nods, distance)
  k = jnp.array([[4.2, 0.0, 0.45], [0.0, 4.3, 0.55], [0.0, 0.0, 1.0]])
  views = Cameras(pose, jnp.broadcast_to(k, (9, 3, 3)))
  uv, depth = cameras.project(jnp.zeros((9, 1, 3)), views)
  # float32, focal length 4.
  np.testing.assert_allclose(uv[:, 0], [[0.45, 0.55]] * 9, atol=2e-6)
  np.testing.assert_allclose(depth[:, 0], distance, rtol=1e-6)
  eye = pose[:, :3, 3] / distance[:, None]
  want = np.stack(
    [
      np.sin(turn) * np.cos(nod),
      np.full(9, np.sin(nod)),
      np.cos(turn) * np.cos(nod),
    ],
    -1,
  )
  np.testing.assert_allclose(eye, want, atol=1e-6)
  rotation = pose[:, :3, :3]
  np.testing.assert_allclose(
    rotation @ jnp.swapaxes(rotation, 1, 2), [np.eye(3)] * 9, atol=1e-6
  )
  np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)
