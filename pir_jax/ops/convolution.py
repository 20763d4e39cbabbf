"""Convolutions of the StyleGAN2 family: plain, resampling and modulated.

b batch, h height, w width, i input channels, o output channels, k kernel size.
Kernels are (k, k, i, o) and are correlated with the image, as everywhere in
JAX; the published up-convolutions flip theirs, which `convert` undoes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.ops import filters

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(
  x: Float[Array, "b h w i"],
  kernel: Float[Array, "k k i o"],
  *,
  stride: int = 1,
  padding: str = "SAME",
) -> Float[Array, "b h2 w2 o"]:
  """Correlates; `padding` is SAME (zeros) or VALID."""
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT
  )


def _blurred(kernel):
  """Kernel of the 3x3 correlation followed by the low-pass: 6x6."""
  for axis in (0, 1):
    widths = [(0, 0)] * kernel.ndim
    shifted = []
    for i, tap in enumerate(filters.TAPS):
      widths[axis] = (i, len(filters.TAPS) - 1 - i)
      shifted.append(tap * jnp.pad(kernel, widths))
    kernel = sum(shifted)
  return kernel


def conv2d_up2(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
  """Inserts zeros, correlates with a 3x3 kernel, low-passes: twice the size.

  The two linear maps are one 6x6 kernel, and each of the four output pixels of
  an input pixel sees 3x3 of its taps: one plain convolution to 4 o channels.
  The textbook form, a dilated convolution, has a gradient that XLA computes
  many times slower on a CPU.
  """
  num_batch, height, width, _ = x.shape
  # The gain of 4 makes up for the zeros.
  taps = 4 * _blurred(kernel)
  odd, even = slice(1, None, 2), slice(0, None, 2)
  phases = [taps[r, c] for r in (odd, even) for c in (odd, even)]
  y = conv2d(x, jnp.concatenate(phases, -1))
  y = y.reshape(num_batch, height, width, 2, 2, -1)
  y = jnp.swapaxes(y, 2, 3)
  return y.reshape(num_batch, 2 * height, 2 * width, -1)


def conv2d_down2(
  x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "b h2 w2 o"]:
  """Low-passes, then correlates with stride 2; the kernel is 1x1 or 3x3."""
  if kernel.shape[0] == 1:
    return conv2d(filters.downsample2(x), kernel)
  x = filters.blur(x, before=2, after=2)
  return conv2d(x, kernel, stride=2, padding="VALID")


def modulated_conv2d(
  x: Float[Array, "b h w i"],
  kernel: Float[Array, "k k i o"],
  styles: Float[Array, "b i"],
  *,
  up: int = 1,
  demodulate: bool = True,
) -> Float[Array, "b h2 w2 o"]:
  """Convolves with a kernel whose inputs are scaled per example (StyleGAN2).

  The scale is put on the input and the demodulation on the output: the same
  numbers as a kernel per example, without a grouped convolution.
  """
  if up not in (1, 2):
    raise ValueError(f"up={up} must be 1 or 2")
  y = x * styles[:, None, None, :].astype(x.dtype)
  convolve = conv2d if up == 1 else conv2d_up2
  y = convolve(y, kernel.astype(x.dtype))
  if demodulate:
    energy = jnp.square(styles) @ jnp.sum(jnp.square(kernel), (0, 1))
    y = y * jax.lax.rsqrt(energy + 1e-8)[:, None, None, :].astype(y.dtype)
  return y
