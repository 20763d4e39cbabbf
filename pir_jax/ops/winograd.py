"""3x3 convolution with a quarter of the products, for CPUs in float32.

Winograd's F(4x4, 3x3) (Lavin and Gray 2016): tiles of 6x6 inputs give 4x4
outputs by 36 products a channel pair instead of 144. Each value is off by
about 1e-6 of the deviation and the worst by 1e-5, five times as much as plainly
computed, so it is used only where a picture is the result.

b batch, h height, w width, i input channels, o output channels, n tiles.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TILE = 4
# Below this many channels a plain convolution is as quick.
MIN_CHANNELS = 64
# What the tiles of a strip may take, in bytes: more falls out of the cache.
_STRIP = 2 * 2**20

# Interpolation at 0, +-3/4, +-3/2 and infinity: errors are a third of those of
# the customary 0, +-1, +-2. Rows of the first two are scaled against each other
# by powers of two.
_INPUT = np.float32(
  [
    [81 / 64, 0, -45 / 16, 0, 1, 0],
    [0, -27 / 16, -9 / 4, 3 / 4, 1, 0],
    [0, 27 / 16, -9 / 4, -3 / 4, 1, 0],
    [0, -27 / 64, -9 / 32, 3 / 4, 1 / 2, 0],
    [0, 27 / 64, -9 / 32, -3 / 4, 1 / 2, 0],
    [0, 81 / 64, 0, -45 / 16, 0, 1],
  ]
)
_KERNEL = np.float32(
  [
    [64 / 81, 0, 0],
    [-128 / 243, -32 / 81, -8 / 27],
    [-128 / 243, 32 / 81, -8 / 27],
    [64 / 243, 32 / 81, 16 / 27],
    [64 / 243, -32 / 81, 16 / 27],
    [0, 0, 1],
  ]
)
_OUTPUT = np.float32(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 3 / 4, -3 / 4, 3 / 2, -3 / 2, 0],
    [0, 9 / 16, 9 / 16, 9 / 4, 9 / 4, 0],
    [0, 27 / 64, -27 / 64, 27 / 8, -27 / 8, 1],
  ]
)


def fits(
  shape: tuple[int, ...], kernel: tuple[int, ...], dtype: jnp.dtype
) -> bool:
  """Whether `conv3x3` can take these shapes, and gains by it on a CPU."""
  return (
    kernel[:2] == (3, 3)
    and shape[1] % TILE == 2
    and shape[2] % TILE == 2
    and min(kernel[2:]) >= MIN_CHANNELS
    and dtype == jnp.float32
  )


def _mix(matrix, parts):
  """Rows of a small matrix applied to a list of arrays."""
  return [
    sum(float(c) * part for c, part in zip(row, parts, strict=True) if c)
    for row in matrix
  ]


def transformed(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h-2 w-2 o"]:
  """The convolution without padding, by tiles."""
  num_batch, height, width, depth = x.shape
  size = len(_INPUT)
  kernels = [
    jnp.stack(_mix(_KERNEL, list(row))) for row in _mix(_KERNEL, list(kernel))
  ]
  # Not to be computed again inside each product.
  kernels = jax.lax.optimization_barrier(kernels)
  rows, columns = (height - 2) // TILE, (width - 2) // TILE
  tiles = min(num_batch * rows * columns * depth * size * 4, rows * _STRIP)
  num = next(
    n for n in range(1, rows + 1) if rows % n == 0 and n * _STRIP >= tiles
  )
  step = rows // num * TILE
  strips = [
    _strip(x[:, i * step : (i + 1) * step + 2], kernels) for i in range(num)
  ]
  return jnp.concatenate(strips, 1)


# Traced once a shape: a large picture has many strips of hundreds of sums each.
@jax.jit
def _strip(x, kernels):
  num_batch, height, width, depth = x.shape
  rows, columns = (height - 2) // TILE, (width - 2) // TILE
  size = len(_INPUT)

  def every(x, start, count, axis):
    stop = start + TILE * (count - 1) + 1
    return jax.lax.slice_in_dim(x, start, stop, TILE, axis)

  bands = _mix(_INPUT, [every(x, i, rows, 1) for i in range(size)])
  products = []
  for band, across in zip(bands, kernels, strict=True):
    tiles = _mix(_INPUT, [every(band, j, columns, 2) for j in range(size)])
    tiles = jnp.stack(tiles).reshape(size, -1, depth)
    product = jnp.einsum("kni,kio->kno", tiles, across)
    products.append(jnp.stack(_mix(_OUTPUT, list(product))))
  y = jnp.stack(_mix(_OUTPUT, products))  # row in the tile, column in it, n, o
  y = y.reshape(TILE, TILE, num_batch, rows, columns, -1)
  y = jnp.transpose(y, (2, 3, 0, 4, 1, 5))
  return y.reshape(num_batch, TILE * rows, TILE * columns, -1)


def _plain(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def conv3x3(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h-2 w-2 o"]:
  """3x3 correlation without padding: by tiles on a CPU, else as it is.

  Other devices' libraries choose their own way.
  """
  return jax.lax.platform_dependent(x, kernel, cpu=transformed, default=_plain)
