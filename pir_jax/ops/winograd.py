"""3x3 convolution with a quarter of the products, for CPUs in float32.

Winograd's F(4x4, 3x3) (Lavin and Gray 2016): tiles of 6x6 inputs give 4x4
outputs by 36 products a channel pair instead of 144. It loses a digit or two,
so it is used only where a picture is the result.

b batch, h height, w width, i input channels, o output channels, n tiles.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TILE = 4
# Below this many channels a plain convolution is as quick.
MIN_CHANNELS = 64

# Interpolation at 0, 1, -1, 2, -2 and infinity.
_INPUT = np.float32(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
)
_KERNEL = np.float32(
  [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ]
)
_OUTPUT = np.float32(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
  ]
)


def fits(x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"]) -> bool:
  """Whether `conv3x3` can take these, and gains by it on a CPU."""
  return (
    kernel.shape[:2] == (3, 3)
    and x.shape[1] % TILE == 0
    and x.shape[2] % TILE == 0
    and min(kernel.shape[2:]) >= MIN_CHANNELS
    and x.dtype == jnp.float32
  )


def _mix(matrix, parts):
  """Rows of a small matrix applied to a list of arrays."""
  return [
    sum(float(c) * part for c, part in zip(row, parts, strict=True) if c)
    for row in matrix
  ]


def transformed(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h w o"]:
  """The convolution with zeros around x, by tiles."""
  num_batch, height, width, _ = x.shape
  rows, columns = height // TILE, width // TILE
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

  def every(x, start, count, axis):
    stop = start + TILE * (count - 1) + 1
    return jax.lax.slice_in_dim(x, start, stop, TILE, axis)

  size = len(_INPUT)
  bands = _mix(_INPUT, [every(padded, i, rows, 1) for i in range(size)])
  kernels = jnp.einsum("ri,cj,ijkl->rckl", _KERNEL, _KERNEL, kernel)
  products = []
  for band, across in zip(bands, kernels, strict=True):
    tiles = _mix(_INPUT, [every(band, j, columns, 2) for j in range(size)])
    tiles = jnp.stack(tiles).reshape(size, -1, x.shape[3])
    product = jnp.einsum("kni,kio->kno", tiles, across)
    products.append(jnp.stack(_mix(_OUTPUT, list(product))))
  y = jnp.stack(_mix(_OUTPUT, products))  # row in the tile, column in it, n, o
  y = y.reshape(TILE, TILE, num_batch, rows, columns, -1)
  y = jnp.transpose(y, (2, 3, 0, 4, 1, 5))
  return y.reshape(num_batch, height, width, -1)


def _plain(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def conv3x3(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h w o"]:
  """3x3 correlation with zeros around x: by tiles on a CPU, else as it is.

  Other devices' libraries choose their own way.
  """
  return jax.lax.platform_dependent(x, kernel, cpu=transformed, default=_plain)
