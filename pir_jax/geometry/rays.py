"""Rays through the pixel centres of a grid that covers the window.

b batch, r rays (row by row), s samples along a ray.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.types import Cameras


class Rays(NamedTuple):
  """Half lines in the world; directions have length 1.

  Attributes:
    origins: the camera's centre, once per ray.
    directions: from the centre through the pixel.
  """

  origins: Float[Array, "*b r 3"]
  directions: Float[Array, "*b r 3"]


def pixel_centres(resolution: int) -> Float[Array, "r 2"]:
  """Returns (u, v) of an R x R grid, row by row: (i + 0.5) / R."""
  centre = (jnp.arange(resolution) + 0.5) / resolution
  v, u = jnp.meshgrid(centre, centre, indexing="ij")
  return jnp.stack([u.ravel(), v.ravel()], -1)


def through(cameras: Cameras, window: Float[Array, "r 2"]) -> Rays:
  """Casts rays through window coordinates; K may have skew."""
  pose, k = jnp.asarray(cameras.pose), jnp.asarray(cameras.intrinsics)
  u, v = window[:, 0], window[:, 1]
  fx, fy = k[..., 0, 0, None], k[..., 1, 1, None]
  y = (v - k[..., 1, 2, None]) / fy
  x = (u - k[..., 0, 2, None] - k[..., 0, 1, None] * y) / fx
  local = jnp.stack([x, y, jnp.ones_like(x)], -1)
  directions = local @ jnp.swapaxes(pose[..., :3, :3], -1, -2)
  directions /= jnp.linalg.norm(directions, axis=-1, keepdims=True)
  origins = jnp.broadcast_to(pose[..., None, :3, 3], directions.shape)
  return Rays(origins, directions)


def cast(cameras: Cameras, resolution: int) -> Rays:
  """Casts one ray per pixel of an R x R image, row by row."""
  return through(cameras, pixel_centres(resolution))


def points_along(
  rays: Rays, depths: Float[Array, "*b r s"]
) -> Float[Array, "*b r s 3"]:
  """Returns points at distances `depths` from the rays' origins."""
  return (
    rays.origins[..., None, :]
    + depths[..., None] * rays.directions[..., None, :]
  )
