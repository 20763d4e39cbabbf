"""Gradients of convolutions by their kernels, for XLA's CPU backend.

XLA makes of such a gradient a convolution with a kernel as large as the image,
of one channel for each example: four to eight times as slow as the convolution
it belongs to. Here they are matrix products over blocks that stay in the cache:

`by_rows` gathers the shifts of a block of rows and multiplies them by the
gradient's, for any kernel and stride. `by_tiles` is the gradient of Winograd's
tiles in `cpu_convolution`, with a quarter of the products and its rounding.
`by_blocks` takes 2x2 blocks of pixels as channels, for large kernels on images.

b batch, h height, w width, i input channels, o output channels, k kernel size.
All are of correlations without padding.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.ops import cpu_convolution

# Pixels of a block: few enough to stay in the cache, enough for a long product.
_BLOCK = 1024
# Where all stays in the cache XLA's own way is as quick, and with few products
# for each value that is copied.
_MIN_BYTES, _MIN_KERNEL = 2**22, 4096
# `by_blocks`: more channels are quick as they are, and small kernels.
_MAX_FEWER, _MAX_MORE, _MIN_SIZE = 4, 32, 5
# Bytes of tiles taken at once; more channels make longer work of each.
_TILES, _TILES_OF_MANY = 2**22, 2**24


def rows_fit(
  num_values: int, kernel: tuple[int, ...], dtype: jnp.dtype
) -> bool:
  """Whether `by_rows` gains on a CPU.

  Args:
    num_values: of inputs and outputs together.
    kernel: its shape.
    dtype: of all.
  """
  return (
    4 * num_values >= _MIN_BYTES
    and (kernel[:2] == (1, 1) or math.prod(kernel) >= _MIN_KERNEL)
    and dtype == jnp.float32
  )


def by_rows(
  x: Float[Array, "b h w i"],
  gradient: Float[Array, "b h2 w2 o"],
  size: tuple[int, int],
  stride: int = 1,
) -> Float[Array, "k1 k2 i o"]:
  """Sums products of shifted inputs and gradients; exact to rounding.

  Without a stride the shifts may as well be the gradient's, along rows or both
  axes: whichever are fewer values to copy.

  Args:
    x: inputs of the correlation, with their zeros around.
    gradient: by its outputs.
    size: of the kernel.
    stride: of both axes.
  """
  num_batch, _, width, depth = x.shape
  _, height, columns, num_outputs = gradient.shape
  tall, wide = size
  # Values to copy for a pixel.
  of_input = tall * wide * depth + num_outputs
  of_both = wide * depth + tall * num_outputs
  of_gradient = depth + tall * wide * num_outputs
  if stride == 1 and of_gradient < min(of_input, of_both):
    pads = (0, 0), *[(n - 1, n - 1) for n in size], (0, 0)
    turned = by_rows(jnp.pad(gradient, pads), x, size)
    return jnp.swapaxes(turned[::-1, ::-1], 2, 3)
  # How many shifts along rows are whose.
  inner, outer = tall, 1
  if stride == 1 and of_both < of_input:
    inner, outer = 1, tall
  block = min(height, -(-_BLOCK // columns))
  num_blocks = -(-(height + outer - 1) // block)
  below = num_blocks * block - height
  rest = stride * (num_blocks * block - 1) + tall - x.shape[1]
  x = jnp.pad(x, ((0, 0), (0, max(rest, 0)), (0, 0), (0, 0)))
  gradient = jnp.pad(gradient, ((0, 0), (outer - 1, below), (0, 0), (0, 0)))
  last_row, last_column = stride * (block - 1), stride * (columns - 1)

  def add(total, index):
    example, row = index // num_blocks, index % num_blocks * block
    rows = jax.lax.dynamic_slice(
      x, (example, stride * row, 0, 0), (1, last_row + inner, width, depth)
    )[0]
    inputs = [
      rows[r : r + last_row + 1 : stride, c : c + last_column + 1 : stride]
      for r in range(inner)
      for c in range(wide)
    ]
    rows = jax.lax.dynamic_slice(
      gradient,
      (example, row, 0, 0),
      (1, block + outer - 1, columns, num_outputs),
    )[0]
    outputs = [rows[r : r + block] for r in reversed(range(outer))]
    inputs, outputs = (jnp.concatenate(each, -1) for each in (inputs, outputs))
    return total + jnp.einsum("hwi,hwo->io", inputs, outputs), None

  start = jnp.zeros((inner * wide * depth, outer * num_outputs), x.dtype)
  total, _ = jax.lax.scan(add, start, jnp.arange(num_batch * num_blocks))
  total = total.reshape(inner, wide, depth, outer, num_outputs)
  # One of the two is 1.
  total = jnp.transpose(total, (0, 3, 1, 2, 4))
  return total.reshape(*size, depth, num_outputs)


def blocks_fit(shape: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
  """Whether `by_blocks` can take these shapes, and gains by it on a CPU.

  Args:
    shape: of the image, padding included.
    kernel: its shape.
  """
  size, fewer, more = kernel[0], *sorted(kernel[2:])
  return (
    kernel[1] == size
    and size >= _MIN_SIZE
    and size % 2 == 1
    and shape[1] % 2 == 0
    and shape[2] % 2 == 0
    and fewer <= _MAX_FEWER
    and more <= _MAX_MORE
  )


def by_blocks(
  x: Float[Array, "b h w i"],
  gradient: Float[Array, "b h2 w2 o"],
  size: int,
) -> Float[Array, "k k i o"]:
  """Sums products of 2x2 blocks of pixels, for shapes that `blocks_fit`."""
  shape = (size, size, x.shape[-1], gradient.shape[-1])
  widen = jax.linear_transpose(_widen, jax.ShapeDtypeStruct(shape, x.dtype))
  span = size // 2 + 1
  blocks = map(_as_blocks, (x, gradient))
  (kernel,) = widen(by_rows(*blocks, (span, span)))
  return kernel


def _as_blocks(x: Float[Array, "b h w i"]) -> Float[Array, "b h/2 w/2 4*i"]:
  """Makes the pixels of 2x2 blocks channels, row by row."""
  num_batch, height, width, depth = x.shape
  blocks = x.reshape(num_batch, height // 2, 2, width // 2, 2, depth)
  blocks = jnp.transpose(blocks, (0, 1, 3, 2, 4, 5))
  return blocks.reshape(num_batch, height // 2, width // 2, 4 * depth)


def _widen(
  kernel: Float[Array, "k k i o"],
) -> Float[Array, "k//2+1 k//2+1 4*i 4*o"]:
  """Places a kernel of pixels on blocks, once for each pixel of a block."""
  size, _, depth, _ = kernel.shape
  span = size // 2 + 1  # Blocks under a kernel, wherever it begins in one.

  def placed(row, column):
    pads = ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0))
    return jnp.pad(kernel, pads)

  wide = jnp.stack([jnp.stack([placed(r, c) for c in (0, 1)]) for r in (0, 1)])
  wide = wide.reshape(2, 2, span, 2, span, 2, depth, -1)
  wide = jnp.transpose(wide, (2, 4, 3, 5, 6, 0, 1, 7))
  return wide.reshape(span, span, 4 * depth, -1)


def by_tiles(
  x: Float[Array, "b h w i"], gradient: Float[Array, "b h-2 w-2 o"]
) -> Float[Array, "3 3 i o"]:
  """Takes the gradient of `conv_by_tiles`, for whose shapes it is."""
  num_batch, _, width, depth = x.shape
  rows = gradient.shape[1] // cpu_convolution.TILE
  num_outputs = gradient.shape[3]
  few = min(depth, num_outputs) < 128
  room = _TILES if few else _TILES_OF_MANY
  each = num_batch * width // cpu_convolution.TILE * max(depth, num_outputs)
  each *= 4 * 6**2
  num = next(
    n
    for n in range(1, rows + 1)
    if rows % n == 0 and n * room >= rows * each or n == rows
  )
  step = rows // num * cpu_convolution.TILE

  def add(total, start):
    strip = jax.lax.dynamic_slice_in_dim(x, start, step + 2, 1)
    part = jax.lax.dynamic_slice_in_dim(gradient, start, step, 1)
    products = [
      jnp.einsum("kni,kno->kio", inputs, outputs)
      for inputs, outputs in zip(
        cpu_convolution.input_tiles(strip),
        cpu_convolution.gradient_tiles(part),
        strict=True,
      )
    ]
    return total + jnp.stack(products), None

  start = jnp.zeros((6, 6, depth, num_outputs), x.dtype)
  total, _ = jax.lax.scan(add, start, step * jnp.arange(num))
  return cpu_convolution.kernel_of_tiles(total)
