"""Large kernels on images of three colours, for CPUs.

Three channels leave a convolution's inner product too short for XLA's CPU
backend. With the pixels of cells of 2x2 as channels there are four times as
many, in and out, for a kernel half as large: some products are with zeros, and
it takes a third of the time.

b batch, h height, w width, i input channels, o output channels, k kernel size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MOST_IN, MOST_OUT = 4, 32  # More channels are quick as they are.
LEAST_SIZE = 5  # A smaller kernel gains nothing.


def fits(
  shape: tuple[int, ...], kernel: tuple[int, ...], dtype: jnp.dtype
) -> bool:
  """Whether `conv` can take these shapes, and gains by it on a CPU."""
  size, _, num_in, num_out = kernel
  return (
    kernel[1] == size
    and size >= LEAST_SIZE
    and size % 2 == 1
    and shape[1] % 2 == 0
    and shape[2] % 2 == 0
    and num_in <= MOST_IN
    and num_out <= MOST_OUT
    and dtype == jnp.float32
  )


def conv(
  x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "b h2 w2 o"]:
  """Correlation without padding of what `fits`; float32 to rounding."""
  num_batch, height, width, depth = x.shape
  size = kernel.shape[0]
  reach = size // 2 + 1  # Cells under a kernel, wherever it begins in one.
  rows, columns = height // 2, width // 2
  cells = x.reshape(num_batch, rows, 2, columns, 2, depth)
  cells = jnp.transpose(cells, (0, 1, 3, 2, 4, 5))
  cells = cells.reshape(num_batch, rows, columns, 4 * depth)

  def placed(row, column):
    pads = ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0))
    return jnp.pad(kernel, pads)

  wide = jnp.stack([jnp.stack([placed(r, c) for c in (0, 1)]) for r in (0, 1)])
  wide = wide.reshape(2, 2, reach, 2, reach, 2, depth, -1)
  wide = jnp.transpose(wide, (2, 4, 3, 5, 6, 0, 1, 7))
  y = jax.lax.conv_general_dilated(
    cells,
    wide.reshape(reach, reach, 4 * depth, -1),
    (1, 1),
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  rows, columns = y.shape[1:3]
  y = y.reshape(num_batch, rows, columns, 2, 2, -1)
  y = jnp.transpose(y, (0, 1, 3, 2, 4, 5))
  return y.reshape(num_batch, 2 * rows, 2 * columns, -1)
