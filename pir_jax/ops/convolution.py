"""Convolutions of the StyleGAN2 family: plain, resampling and modulated.

b batch, h height, w width, i input channels, o output channels, k kernel size.
Kernels are (k, k, i, o) and are correlated with the image, as everywhere in
JAX; the published up-convolutions flip theirs, which `pretrained` undoes.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.ops import cpu_convolution, cpu_kernel_gradient, filters

Padding = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_NONE = ((0, 0), (0, 0))


def conv2d(
  x: Float[Array, "b h w i"],
  kernel: Float[Array, "k1 k2 i o"],
  *,
  stride: int = 1,
  padding: str | Padding = "SAME",
  quick: bool = False,
) -> Float[Array, "b h2 w2 o"]:
  """Correlates features with a kernel.

  Args:
    x: features.
    kernel: of any size.
    stride: of both axes.
    padding: SAME (zeros), VALID, or how many zeros at each end.
    quick: a 3x3 convolution may be computed by tiles (float32 on a CPU), with
      errors of about 1e-5 of the standard deviation; see `cpu_convolution`.
  """
  if isinstance(padding, str):
    sizes, strides = kernel.shape[:2], (stride, stride)
    padding = jax.lax.padtype_to_pads(x.shape[1:3], sizes, strides, padding)
  padding = tuple((int(before), int(after)) for before, after in padding)
  sizes = _padded(x.shape, padding), kernel.shape, x.dtype
  if quick and stride == 1 and cpu_convolution.tiles_fit(*sizes):
    return _by_tiles(_zeros_around(x, padding), kernel)
  return _correlate(x, kernel, stride, padding)


def _padded(shape, padding):
  sides = zip(shape[1:3], padding, strict=True)
  return shape[0], *(n + sum(ends) for n, ends in sides), shape[3]


def _zeros_around(x, padding):
  return jnp.pad(x, ((0, 0), *padding, (0, 0))) if padding != _NONE else x


def _plain(x, kernel, stride, padding):
  if kernel.shape[:2] == (1, 1) and stride == 1 and padding == _NONE:
    return x @ kernel[0, 0]
  plain = functools.partial(_derived, stride=stride, padding=padding)
  if stride > 1 or not cpu_convolution.rows_fit(kernel.shape, x.dtype):
    return plain(x, kernel)

  def on_cpu(x, kernel):
    return cpu_convolution.conv_by_rows(_zeros_around(x, padding), kernel)

  return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _derived(x, kernel, stride, padding):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT
  )


# Its gradients are those JAX derives, but where XLA's CPU backend is quick: by
# the kernel in `cpu_kernel_gradient`, by x by whatever way is quick forwards.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x, kernel, stride, padding):
  return _plain(x, kernel, stride, padding)


def _correlate_forward(x, kernel, stride, padding):
  return _correlate(x, kernel, stride, padding), (x, kernel)


def _correlate_backward(stride, padding, residuals, gradient):
  x, kernel = residuals
  if stride == 1:
    # Through `_correlate`, so that a penalty on gradients is quick as well.
    (top, bottom), (left, right) = padding
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    margin = ((rows - top, rows - bottom), (columns - left, columns - right))
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    by_x = _correlate(gradient, turned, 1, margin)
  else:
    _, pull = jax.vjp(lambda x: _plain(x, kernel, stride, padding), x)
    (by_x,) = pull(gradient)

  padded = _zeros_around(x, padding)
  return by_x, _by_kernel(padded, gradient, kernel.shape[:2], stride, False)


_correlate.defvjp(_correlate_forward, _correlate_backward)


# A function of its own, so that its own gradients are quick as well.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_kernel(x, gradient, size, stride, tiles):
  """Computes the gradient by the kernel of a correlation without padding."""
  shape = (*size, x.shape[-1], gradient.shape[-1])

  def derived(x, gradient):
    kernel = jnp.zeros(shape, x.dtype)
    _, pull = jax.vjp(lambda k: _derived(x, k, stride, _NONE), kernel)
    return pull(gradient)[0]

  if tiles:
    on_cpu = cpu_kernel_gradient.by_tiles
  elif not cpu_kernel_gradient.rows_fit(x.size + gradient.size, shape, x.dtype):
    return derived(x, gradient)
  elif stride == 1 and cpu_kernel_gradient.blocks_fit(x.shape, shape):
    on_cpu = functools.partial(cpu_kernel_gradient.by_blocks, size=size[0])
  else:
    on_cpu = functools.partial(
      cpu_kernel_gradient.by_rows, size=size, stride=stride
    )
  return jax.lax.platform_dependent(x, gradient, cpu=on_cpu, default=derived)


def _by_kernel_forward(x, gradient, size, stride, tiles):
  return _by_kernel(x, gradient, size, stride, tiles), (x, gradient)


def _by_kernel_backward(size, stride, tiles, residuals, cotangent):
  del size, tiles
  x, gradient = residuals
  by_gradient, pull = jax.vjp(
    lambda x: _correlate(x, cotangent, stride, _NONE), x
  )
  return pull(gradient)[0], by_gradient


_by_kernel.defvjp(_by_kernel_forward, _by_kernel_backward)


@jax.custom_vjp
def _by_tiles(x, kernel):
  return cpu_convolution.conv3x3(x, kernel)


def _by_tiles_forward(x, kernel):
  return _by_tiles(x, kernel), (x, kernel)


def _by_tiles_backward(residuals, gradient):
  x, kernel = residuals
  by_kernel = _by_kernel(x, gradient, (3, 3), 1, True)
  turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
  # Two more rows and columns of zeros than it takes, to fill the last tiles.
  margined = _zeros_around(gradient, ((2, 4), (2, 4)))
  by_x = _by_tiles(margined, turned)[:, : x.shape[1], : x.shape[2]]
  return by_x, by_kernel


_by_tiles.defvjp(_by_tiles_forward, _by_tiles_backward)


def conv2d_up2(
  x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
  """Inserts zeros, correlates with a 3x3 kernel, low-passes: twice the size.

  Between inserted zeros an even row meets only the kernel's middle row and an
  odd one its outer two, and likewise for columns: four small convolutions of
  1, 2, 2 and 4 weights make the four phases, 9 products for each input pixel.
  The low-pass then mixes the phases. Folding it into the kernel first would be
  one convolution of 36 products; a dilated one has a gradient that XLA computes
  many times slower on a CPU.
  """
  # Odd phases begin with the row (column) before the first input.
  one, two = (0, 0), (1, 1)
  middle, outer = slice(1, 2), slice(0, None, 2)

  def phase(rows, columns, padding):
    return conv2d(x, kernel[rows, columns], padding=padding)

  left = filters.blur_phases(
    phase(middle, middle, (one, one)), phase(outer, middle, (two, one)), axis=1
  )
  right = filters.blur_phases(
    phase(middle, outer, (one, two)), phase(outer, outer, (two, two)), axis=1
  )
  rows = [
    jnp.stack(filters.blur_phases(even, odd, axis=2), 3)
    for even, odd in zip(left, right, strict=True)
  ]
  y = jnp.stack(rows, 2)
  num_batch, height, _, width, _, depth = y.shape
  return y.reshape(num_batch, 2 * height, 2 * width, depth)


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
  quick: bool = False,
) -> Float[Array, "b h2 w2 o"]:
  """Convolves with a kernel whose inputs are scaled per example (StyleGAN2).

  Args:
    x: features.
    kernel: shared by the batch.
    styles: scales of the inputs.
    up: 2 doubles the size.
    demodulate: whether every output is divided by its kernel's norm.
    quick: see `conv2d`; only without doubling.
  """
  if up not in (1, 2):
    raise ValueError(f"up={up} must be 1 or 2")
  demodulation = None
  if demodulate:
    # A sum of slices: a reduction over leading axes takes XLA on a CPU as long
    # as the convolution itself.
    energy = jnp.square(styles) @ sum(
      jnp.square(kernel[row, column])
      for row in range(kernel.shape[0])
      for column in range(kernel.shape[1])
    )
    demodulation = jax.lax.rsqrt(energy + 1e-8)
  convolve = conv2d_up2
  if up == 1:
    convolve = functools.partial(conv2d, quick=quick)
  if x.shape[0] == 1 and x.size > kernel.size:
    # One kernel is scaled with less work than one large image.
    kernel = kernel * styles[0, :, None]
    if demodulation is not None:
      kernel = kernel * demodulation[0]
    return convolve(x, kernel.astype(x.dtype))
  # For many, the scale is put on the input and the demodulation on the output:
  # the same values as a kernel per example, without a grouped convolution.
  y = x * styles[:, None, None, :].astype(x.dtype)
  y = convolve(y, kernel.astype(x.dtype))
  if demodulation is not None:
    y = y * demodulation[:, None, None, :].astype(y.dtype)
  return y
