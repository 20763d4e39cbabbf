"""Gradients by kernels: the sums they are, and their own gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import convolution, cpu_convolution, cpu_kernel_gradient


def _sample(size, channels, stride=1, sides=(8, 12)):
  rng = np.random.default_rng(0)
  image = [stride * (n - 1) + k for n, k in zip(sides, size, strict=True)]
  x = rng.normal(size=(2, *image, channels[0]))
  return x, rng.normal(size=(2, *sides, channels[1]))


def _direct(x, gradient, size, stride=1):
  """Sums in float64."""
  height, width = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
  rows = [
    [
      np.einsum(
        "bhwi,bhwo->io",
        x[:, r : r + height : stride, c : c + width : stride],
        gradient,
      )
      for c in range(size[1])
    ]
    for r in range(size[0])
  ]
  return np.array(rows)


def _float32(*arrays):
  return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(
    ("shifts of inputs", (3, 3), (1, 40), 1),
    ("shifts of both", (3, 2), (5, 4), 1),
    ("shifts of the gradient", (2, 3), (40, 1), 1),
    ("one weight", (1, 1), (5, 4), 1),
    ("stride 2", (3, 3), (5, 4), 2),
    ("even kernel, stride 2", (4, 4), (6, 8), 2),
  )
  def test_rows_give_the_sum(self, size, channels, stride):
    x, gradient = _sample(size, channels, stride)
    # Blocks of two rows, which do not divide what they must.
    block, cpu_kernel_gradient._BLOCK = cpu_kernel_gradient._BLOCK, 36
    try:
      got = self.variant(
        lambda *args: cpu_kernel_gradient.by_rows(*args, size, stride)
      )(*_float32(x, gradient))
    finally:
      cpu_kernel_gradient._BLOCK = block
    want = _direct(x, gradient, size, stride)
    # Float32, summed in another order.
    np.testing.assert_allclose(got, want, atol=1e-5 * want.std())

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(("in", (3, 8)), ("out", (8, 3)))
  def test_blocks_give_the_sum(self, channels):
    x, gradient = _sample((5, 5), channels)
    got = self.variant(lambda *args: cpu_kernel_gradient.by_blocks(*args, 5))(
      *_float32(x, gradient)
    )
    want = _direct(x, gradient, (5, 5))
    np.testing.assert_allclose(got, want, atol=1e-5 * want.std())

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(("whole", 2**24), ("strips", 2000))
  def test_tiles_give_the_sum(self, room):
    x, gradient = _sample((3, 3), (5, 4))
    whole, cpu_kernel_gradient._TILES = cpu_kernel_gradient._TILES, room
    try:
      got = self.variant(cpu_kernel_gradient.by_tiles)(*_float32(x, gradient))
    finally:
      cpu_kernel_gradient._TILES = whole
    want = _direct(x, gradient, (3, 3))
    # As `conv_by_tiles`: its coefficients cancel.
    np.testing.assert_allclose(got, want, atol=2e-5 * want.std())


@pytest.mark.parametrize(
  "size, channels, stride, quick",
  [
    (3, (5, 4), 1, False),
    (3, (5, 4), 2, False),
    (4, (6, 8), 2, False),
    (7, (3, 8), 1, False),
    (3, (64, 64), 1, True),
  ],
)
def test_gradients_and_their_gradients_are_those_that_jax_derives(
  size, channels, stride, quick, monkeypatch
):
  monkeypatch.setattr(cpu_kernel_gradient, "_MIN_BYTES", 0)
  monkeypatch.setattr(cpu_kernel_gradient, "_MIN_KERNEL", 0)
  monkeypatch.setattr(cpu_convolution, "_MIN_PRODUCTS", 0)
  x, _ = _sample((size, size), channels, stride, (12, 12))
  kernel = np.random.default_rng(1).normal(size=(size, size, *channels))

  def derived(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def ours(x, kernel):
    return convolution.conv2d(
      x, kernel, stride=stride, padding="VALID", quick=quick
    )

  def penalty(args, convolve):
    """Of all gradients, so that each is differentiated by each."""

    def energy(args):
      return jnp.sum(jnp.sin(convolve(*args)))

    by_x, by_kernel = jax.grad(energy)(args)
    return jnp.sum(jnp.sin(by_x)) + jnp.sum(jnp.sin(by_kernel / size**2))

  args = _float32(x, kernel / np.sqrt(size**2 * channels[0]))
  got, want = (
    jax.jit(jax.grad(penalty), static_argnums=1)(args, convolve)
    for convolve in (ours, derived)
  )
  for one, other in zip(got, want, strict=True):
    # Sums of sines of sums: float32's rounding, and that of tiles.
    np.testing.assert_allclose(one, other, atol=1e-4 * other.std())


@pytest.mark.parametrize(
  "side, kernel, dtype, fits",
  [
    (128, (3, 3, 64, 64), "float32", True),
    (128, (3, 3, 64, 64), "bfloat16", False),
    (16, (3, 3, 64, 64), "float32", False),
    (512, (3, 3, 3, 32), "float32", False),
    (512, (7, 7, 3, 32), "float32", True),
    (256, (1, 1, 32, 3), "float32", True),
  ],
)
def test_rows_are_for_large_images_and_many_products(side, kernel, dtype, fits):
  num_values, dtype = side**2 * sum(kernel[2:]), jnp.dtype(dtype)
  assert cpu_kernel_gradient.rows_fit(num_values, kernel, dtype) is fits


@pytest.mark.parametrize(
  "changes, fits",
  [
    ({}, True),
    ({"channels": (8, 8)}, False),
    ({"channels": (3, 64)}, False),
    ({"channels": (8, 3)}, True),
    ({"size": 3}, False),
    ({"size": 6}, False),
    ({"height": 11}, False),
  ],
)
def test_blocks_are_for_large_odd_kernels_on_images(changes, fits):
  options = dict(channels=(3, 8), size=5, height=12) | changes
  num_inputs, num_outputs = options["channels"]
  shape = (2, options["height"], 16, num_inputs)
  kernel = (options["size"],) * 2 + (num_inputs, num_outputs)
  assert cpu_kernel_gradient.blocks_fit(shape, kernel) is fits


def test_gradients_are_finite_at_extremes(extreme):
  x, gradient = jnp.full((1, 10, 10, 4), extreme), jnp.ones((1, 8, 8, 4))
  large, few = jnp.full((1, 12, 12, 3), extreme), jnp.ones((1, 8, 8, 4))
  chex.assert_tree_all_finite(
    (
      cpu_kernel_gradient.by_rows(x, gradient, (3, 3)),
      cpu_kernel_gradient.by_tiles(x, gradient),
      cpu_kernel_gradient.by_blocks(large, few, 5),
    )
  )
