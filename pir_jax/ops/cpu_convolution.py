"""Convolutions that XLA's CPU backend computes slowly, computed another way.

`conv_by_rows` is for large kernels with few outputs, which leave the products'
matrices too narrow: each row of the kernel makes outputs of its own, to be
summed afterwards. It takes a quarter to a third of the time.

`conv3x3` is Winograd's F(4x4, 3x3) (Lavin and Gray 2016), with a quarter of the
products: tiles of 6x6 inputs give 4x4 outputs by 36 products a channel pair
instead of 144. Each value is off by about 1e-6 of the standard deviation and
the worst by 1e-5, five times as much as by the direct sum, so it is used only
where a picture is the result.

b batch, h height, w width, i input channels, o output channels, k kernel size,
n tiles. All are correlations without padding.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# `conv_by_rows`: more outputs are quick as they are, and small kernels.
_MAX_OUTPUTS, _MIN_SIZE = 4, 5

TILE = 4
# Below this many channels, or products in all, the direct convolution is as
# quick as tiles, and compiles sooner.
_MIN_CHANNELS, _MIN_PRODUCTS = 64, 2 * 10**9
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


def _direct(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT
  )


def rows_fit(kernel: tuple[int, ...], dtype: jnp.dtype) -> bool:
  """Whether `conv_by_rows` gains on a CPU by a kernel of this shape."""
  return (
    kernel[0] >= _MIN_SIZE
    and kernel[3] <= _MAX_OUTPUTS
    and dtype == jnp.float32
  )


def conv_by_rows(
  x: Float[Array, "b h w i"], kernel: Float[Array, "k1 k2 i o"]
) -> Float[Array, "b h2 w2 o"]:
  """Correlates along rows, then sums rows; exact to float32's rounding."""
  tall, wide, depth, num_outputs = kernel.shape
  across = jnp.transpose(kernel, (1, 2, 0, 3)).reshape(1, wide, depth, -1)
  y = _direct(x, across)
  num_batch, rows, columns, _ = y.shape
  y = y.reshape(num_batch, rows, columns, tall, num_outputs)
  height = rows - tall + 1
  return sum(y[:, r : r + height, :, r] for r in range(tall))


def tiles_fit(
  shape: tuple[int, ...], kernel: tuple[int, ...], dtype: jnp.dtype
) -> bool:
  """Whether `conv3x3` can take these shapes, and gains by it on a CPU.

  Args:
    shape: of the image, padding included.
    kernel: its shape.
    dtype: of the image.
  """
  return (
    kernel[:2] == (3, 3)
    and shape[1] % TILE == 2
    and shape[2] % TILE == 2
    and min(kernel[2:]) >= _MIN_CHANNELS
    and math.prod(shape[:3]) * math.prod(kernel) >= _MIN_PRODUCTS
    and dtype == jnp.float32
  )


def conv3x3(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h-2 w-2 o"]:
  """Correlates by tiles on a CPU, directly elsewhere.

  Other devices' libraries choose their own way.
  """
  return jax.lax.platform_dependent(
    x, kernel, cpu=conv_by_tiles, default=_direct
  )


def conv_by_tiles(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h-2 w-2 o"]:
  """Correlates shapes for which `tiles_fit`, whatever the device."""
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
  num_batch, height, width, _ = x.shape
  rows, columns = (height - 2) // TILE, (width - 2) // TILE
  products = []
  for tiles, across in zip(input_tiles(x), kernels, strict=True):
    product = jnp.einsum("kni,kio->kno", tiles, across)
    products.append(jnp.stack(_mix(_OUTPUT, list(product))))
  y = jnp.stack(_mix(_OUTPUT, products))  # row in the tile, column in it, n, o
  y = y.reshape(TILE, TILE, num_batch, rows, columns, -1)
  y = jnp.transpose(y, (2, 3, 0, 4, 1, 5))
  return y.reshape(num_batch, TILE * rows, TILE * columns, -1)


def input_tiles(
  x: Float[Array, "b h w i"],
) -> Iterator[Float[Array, "6 n i"]]:
  """Yields the six rows of transformed tiles of an image."""
  return _tiles(_INPUT, x, (x.shape[1] - 2) // TILE, (x.shape[2] - 2) // TILE)


def gradient_tiles(
  gradient: Float[Array, "b h w o"],
) -> Iterator[Float[Array, "6 n o"]]:
  """Yields what the gradient by the outputs is by the tiles' products."""
  rows, columns = (side // TILE for side in gradient.shape[1:3])
  return _tiles(_OUTPUT.T, gradient, rows, columns)


def kernel_of_tiles(
  products: Float[Array, "6 6 i o"],
) -> Float[Array, "3 3 i o"]:
  """Returns the gradient by a kernel from that by its transform."""
  rows = _mix(_KERNEL.T, list(products))
  return jnp.stack([jnp.stack(_mix(_KERNEL.T, list(row))) for row in rows])


def _tiles(matrix, x, rows, columns):
  def every(x, start, count, axis):
    stop = start + TILE * (count - 1) + 1
    return jax.lax.slice_in_dim(x, start, stop, TILE, axis)

  size, read = matrix.shape
  for band in _mix(matrix, [every(x, i, rows, 1) for i in range(read)]):
    tiles = _mix(matrix, [every(band, j, columns, 2) for j in range(read)])
    yield jnp.stack(tiles).reshape(size, -1, x.shape[-1])


def _mix(matrix, parts):
  """Applies the rows of a small matrix to a list of arrays."""
  return [
    sum(float(c) * part for c, part in zip(row, parts, strict=True) if c)
    for row in matrix
  ]
