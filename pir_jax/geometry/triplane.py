"""Features of points from three axis-aligned planes.

b batch, p the three planes, h height, w width, c channels, n points.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Which two coordinates of a point (x, y, z) pick the column and the row of each
# plane. "eg3d" is what the released EG3D does: its third plane sees (z, x) a
# second time and never (y, z); only its weights want it.
LAYOUTS = {
  "fixed": ((0, 1), (0, 2), (1, 2)),
  "eg3d": ((0, 1), (0, 2), (2, 0)),
}


def project(
  points: Float[Array, "*b n 3"], *, layout: str = "fixed"
) -> Float[Array, "*b 3 n 2"]:
  """(column, row) coordinates of each point on each plane."""
  if layout not in LAYOUTS:
    raise ValueError(f"layout={layout!r} must be one of {sorted(LAYOUTS)}")
  return jnp.stack(
    [points[..., jnp.array(axes)] for axes in LAYOUTS[layout]], -3
  )


def pack_corners(
  planes: Float[Array, "b p h w c"],
) -> Float[Array, "b p h+1 w+1 4*c"]:
  """Puts the four pixels around each cell side by side, zeros outside.

  A bilinear lookup then reads one contiguous row, and its gradient adds one:
  XLA gathers and scatters row by row, so fewer and longer rows are quicker.
  """
  widths = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
  padded = jnp.pad(planes, widths)
  upper, lower = padded[:, :, :-1], padded[:, :, 1:]
  return jnp.concatenate(
    [
      upper[..., :-1, :],
      upper[..., 1:, :],
      lower[..., :-1, :],
      lower[..., 1:, :],
    ],
    -1,
  )


def lookup(
  packed: Float[Array, "b p h1 w1 k"], coordinates: Float[Array, "b p n 2"]
) -> Float[Array, "b p n c"]:
  """Bilinear reads at (column, row) coordinates in [-1, 1].

  -1 and 1 are the outer edges of the outer pixels, and all is zero outside, as
  in grid_sample(align_corners=False, padding_mode="zeros").
  """
  num_batch, num_planes, height, width, depth = packed.shape
  # One less than the packed size is the plane's own; the border pixel of zeros
  # shifts indices by one. Clipping to a full pixel outside reads only zeros.
  size = jnp.array([width - 1, height - 1])
  pixel = (coordinates + 1) * (0.5 * size) + 0.5
  pixel = jnp.clip(pixel, 0, size + 1)
  cell = jnp.clip(jnp.floor(pixel), 0, size)
  x, y = jnp.moveaxis(pixel - cell, -1, 0)
  column, row = jnp.moveaxis(cell.astype(jnp.int32), -1, 0)
  first = jnp.arange(num_batch * num_planes) * (height * width)
  index = first.reshape(num_batch, num_planes, 1) + row * width + column
  rows = packed.reshape(-1, depth).at[index].get(mode="promise_in_bounds")
  corners = rows.reshape(*index.shape, 4, depth // 4)
  weights = jnp.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)
  return jnp.einsum("bpnk,bpnkc->bpnc", weights, corners)
