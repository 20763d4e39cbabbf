"""Pinhole cameras: vectors, projection, rotations.

b batch, n points. Poses are camera-to-world with OpenCV axes (x right, y down,
z ahead); image coordinates (u, v) run from (0, 0) at the window's upper left
corner to (1, 1) at its lower right one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.types import Cameras


def to_vector(cameras: Cameras) -> Float[Array, "*b 25"]:
  """Flattens the pose (16 values) and the intrinsics (9), row by row."""
  pose, intrinsics = jnp.asarray(cameras.pose), jnp.asarray(cameras.intrinsics)
  batch = pose.shape[:-2]
  return jnp.concatenate(
    [pose.reshape(*batch, 16), intrinsics.reshape(*batch, 9)], -1
  )


def from_vector(vector: Float[Array, "*b 25"]) -> Cameras:
  """Undoes `to_vector`."""
  batch = vector.shape[:-1]
  return Cameras(
    vector[..., :16].reshape(*batch, 4, 4),
    vector[..., 16:].reshape(*batch, 3, 3),
  )


def project(
  points: Float[Array, "*b n 3"], cameras: Cameras
) -> tuple[Float[Array, "*b n 2"], Float[Array, "*b n"]]:
  """Projects world points to (window coordinates, depth along the axis).

  Depth is positive in front of the camera; nothing is clipped.
  """
  pose = jnp.asarray(cameras.pose)
  relative = points - pose[..., None, :3, 3]
  # Rows times R is R^T applied to columns: the inverse of a rigid pose.
  local = relative @ pose[..., :3, :3]
  depth = local[..., 2]
  homogeneous = local @ jnp.swapaxes(jnp.asarray(cameras.intrinsics), -1, -2)
  return homogeneous[..., :2] / homogeneous[..., 2:], depth


def moved(
  cameras: Cameras,
  rotation: Float[Array, "*b 3"],
  translation: Float[Array, "*b 3"],
) -> Cameras:
  """Turns cameras about the world's origin, then shifts them, in its axes.

  Args:
    cameras: before the motion.
    rotation: axis times angle, radians.
    translation: in world units.
  """
  pose = jnp.asarray(cameras.pose)
  turned = rotation_from_axis_angle(rotation) @ pose[..., :3, :]
  top = turned.at[..., 3].add(translation)
  return cameras._replace(pose=jnp.concatenate([top, pose[..., 3:, :]], -2))


def rotation_from_axis_angle(
  vector: Float[Array, "*b 3"],
) -> Float[Array, "*b 3 3"]:
  """Applies Rodrigues' formula; the length is the angle in radians.

  Smooth at the zero vector: its sines are series there.
  """
  square = jnp.sum(jnp.square(vector), -1)[..., None, None]
  small = square < 1e-4
  # The root's argument is replaced too, or its infinite slope at 0 would turn
  # the unused branch's gradient into nan.
  angle = jnp.sqrt(jnp.where(small, 1.0, square))
  sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
  cosine = jnp.where(
    small, 0.5 - square / 24, 2 * jnp.square(jnp.sin(angle / 2) / angle)
  )
  x, y, z = jnp.moveaxis(vector, -1, 0)
  zero = jnp.zeros_like(x)
  cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
  cross = cross.reshape(*vector.shape[:-1], 3, 3)
  eye = jnp.eye(3, dtype=vector.dtype)
  return eye + sine * cross + cosine * (cross @ cross)


def rotation_from_euler(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
  """Returns Rz @ Ry @ Rx for (pitch x, yaw y, roll z) in radians."""
  about_x, about_y, about_z = (
    rotation_from_axis_angle(angles[..., i : i + 1] * jnp.eye(3)[i])
    for i in range(3)
  )
  return about_z @ about_y @ about_x


def look_at(
  eye: Float[Array, "*b 3"],
  target: Float[Array, "*b 3"],
  up: Float[Array, "*b 3"],
) -> Float[Array, "*b 4 4"]:
  """Poses a camera at `eye`, `target` in its middle and `up` upwards."""

  def unit(v):
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)

  ahead = unit(target - eye)
  right = unit(jnp.cross(ahead, up))
  down = jnp.cross(ahead, right)
  top = jnp.stack([right, down, ahead, eye], -1)
  last = jnp.broadcast_to(
    jnp.array([0, 0, 0, 1], top.dtype), (*top.shape[:-2], 1, 4)
  )
  return jnp.concatenate([top, last], -2)


def orbit(
  turn: Float[Array, "*b"],
  nod: Float[Array, "*b"],
  distance: Float[Array, "*b"],
) -> Float[Array, "*b 4 4"]:
  """Poses cameras that look at the origin, the head upright in them.

  Args:
    turn: about the world's y, radians; 0 is in front of the face (on +z), more
      goes towards +x.
    nod: height of the camera over the horizon, radians.
    distance: of the camera from the origin.
  """
  # Not `look_at`: that has no answer straight above the head.
  turned = rotation_from_euler(jnp.stack([-nod, turn, jnp.zeros_like(nod)], -1))
  outwards = turned[..., 2]
  # A camera's y is down and its z ahead: half a turn about x.
  rotation = turned * jnp.array([1.0, -1.0, -1.0], turned.dtype)
  eye = distance[..., None] * outwards
  top = jnp.concatenate([rotation, eye[..., None]], -1)
  last = jnp.broadcast_to(
    jnp.array([0, 0, 0, 1], top.dtype), (*top.shape[:-2], 1, 4)
  )
  return jnp.concatenate([top, last], -2)
