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


def by_blocks(
  x: Float[Array, "b h w i"],
  gradient: Float[Array, "b h2 w2 o"],
  size: int,
) -> Float[Array, "k k i o"]:
  """Takes the gradient of `conv_by_blocks`, for whose shapes it is."""
  shape = (size, size, x.shape[-1], gradient.shape[-1])
  widen = jax.linear_transpose(
    cpu_convolution.widen, jax.ShapeDtypeStruct(shape, x.dtype)
  )
  span = size // 2 + 1
  blocks = map(cpu_convolution.as_blocks, (x, gradient))
  (kernel,) = widen(by_rows(*blocks, (span, span)))
  return kernel


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
