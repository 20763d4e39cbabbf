"""Features of points from three axis-aligned planes.

b batch, p the three planes, h height, w width, c channels, n points.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Which two coordinates of a point (x, y, z) pick the column and the row of each
# plane. "eg3d" is what the released EG3D does: its third plane repeats
# (z, x) and none is (y, z); only its weights need it.
LAYOUTS = {
  "fixed": ((0, 1), (0, 2), (1, 2)),
  "eg3d": ((0, 1), (0, 2), (2, 0)),
}


def project(
  points: Float[Array, "*b n 3"], *, layout: str = "fixed"
) -> Float[Array, "*b 3 n 2"]:
  """Projects each point to (column, row) coordinates on each plane."""
  if layout not in LAYOUTS:
    raise ValueError(f"layout={layout!r} must be one of {sorted(LAYOUTS)}")
  return jnp.stack(
    [
      jnp.stack([points[..., axis] for axis in axes], -1)
      for axes in LAYOUTS[layout]
    ],
    -3,
  )


def border(planes: Float[Array, "b p h w c"]) -> Float[Array, "b p h+2 w+2 c"]:
  """Puts a frame of zeros around each plane, as `lookup` takes them."""
  return jnp.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))


def lookup(
  bordered: Float[Array, "b p h2 w2 c"], coordinates: Float[Array, "b p n 2"]
) -> Float[Array, "b n c"]:
  """Sums the planes' bilinear reads at (column, row) in [-1, 1].

  -1 and 1 are the outer edges of the outer pixels, and all is zero outside, as
  in grid_sample(align_corners=False, padding_mode="zeros").

  Twelve reads of a pixel's c channels, each weighed and added at once: XLA
  makes one loop of them all and keeps nothing but the sum. A table with the
  four corners side by side, or a sum over an axis of planes, is 5 to 10 times
  slower on a CPU, for all that passes through memory.
  """
  num_batch, num_planes, height, width, depth = bordered.shape
  table = bordered.reshape(num_batch, -1, depth)
  # The border shifts indices by one; two less than its size is the plane's own.
  # Clipping to the border reads only zeros.
  size = jnp.array([width - 2, height - 2])
  pixel = (coordinates + 1) * (0.5 * size) + 0.5
  pixel = jnp.clip(pixel, 0, size + 1)
  cell = jnp.clip(jnp.floor(pixel), 0, size)
  share = pixel - cell
  column, row = jnp.moveaxis(cell.astype(jnp.int32), -1, 0)
  first = jnp.arange(num_planes) * (height * width)
  index = first[:, None] + row * width + column
  total = 0.0
  for plane in range(num_planes):
    x, y = share[:, plane, :, 0], share[:, plane, :, 1]
    for step, weight in (
      (0, (1 - x) * (1 - y)),
      (1, x * (1 - y)),
      (width, (1 - x) * y),
      (width + 1, x * y),
    ):
      total += weight[..., None] * _read(table, index[:, plane] + step)
  return total


def _read(
  table: Float[Array, "b r c"], index: Int[Array, "b n"]
) -> Float[Array, "b n c"]:
  """Reads rows of each example's own table.

  Over several accelerators that must be said: of one table of all, each of them
  would be sent the whole. The gradient of that is half as quick on a CPU as of
  one table.
  """
  return jax.lax.platform_dependent(table, index, cpu=_of_one, default=_of_own)


def _of_own(table, index):
  return jax.vmap(_rows)(table, index)


def _of_one(table, index):
  num_batch, num_rows, depth = table.shape
  first = jnp.arange(num_batch) * num_rows
  return _rows(table.reshape(-1, depth), first[:, None] + index)


def _rows(table, index):
  return table.at[index].get(mode="promise_in_bounds")
