"""Resampling and modulated convolutions against numbers and definitions."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import convolution, cpu_convolution, filters

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


def _channels_last(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(
    ("same", "same", "weight3x3", {}),
    ("up2", "up2", "weight3x3", {"up": 2}),
    ("nodemod1x1", "nodemod1x1", "weight1x1", {"demodulate": False}),
  )
  def test_modulated_agrees_with_stylegan2(self, name, weight, options):
    golden = np.load(GOLDENS / "stylegan2_ops.npz")
    kernel = golden[f"mod/{weight}"].transpose(2, 3, 1, 0)
    if "up" in options:  # Theirs is a transposed convolution: a flipped kernel.
      kernel = kernel[::-1, ::-1]
    got = self.variant(
      lambda *args: convolution.modulated_conv2d(*args, **options)
    )(
      _channels_last(golden["mod/x"]),
      jnp.asarray(kernel),
      jnp.asarray(golden["mod/styles"]),
    )
    # Outputs near 1 summed from 54 float32 products.
    np.testing.assert_allclose(
      got, _channels_last(golden[f"mod/{name}"]), atol=1e-5
    )

  @chex.variants(with_jit=True, without_jit=True)
  def test_up2_is_zeros_then_kernel_then_low_pass(self):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 5, 4, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 2))
    dilated = jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      ((2, 2), (2, 2)),
      lhs_dilation=(2, 2),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    want = 4 * filters.blur(dilated, before=1, after=1)
    got = self.variant(convolution.conv2d_up2)(x, kernel)
    # The same products, grouped otherwise.
    np.testing.assert_allclose(got, want, atol=2e-5)

  @chex.variants(with_jit=True, without_jit=True)
  def test_down2_by_a_central_weight_is_the_plain_downsampler(self):
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    want = filters.downsample2(x)
    down2 = self.variant(convolution.conv2d_down2)
    centre = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
    for kernel in (centre, jnp.eye(2)[None, None]):
      np.testing.assert_allclose(down2(x, kernel), want, atol=1e-6)


def test_demodulated_output_does_not_see_the_scale_of_the_style():
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
  styles = jnp.abs(jax.random.normal(jax.random.key(2), (2, 4))) + 1
  one = convolution.modulated_conv2d(x, kernel, styles)
  ten = convolution.modulated_conv2d(x, kernel, 10 * styles)
  # Only the 1e-8 under the root differs, and float32 rounding.
  np.testing.assert_allclose(one, ten, atol=1e-5)


def test_values_and_gradients_are_finite_at_extremes(extreme):
  kernel = jnp.ones((3, 3, 2, 2))
  for up, changed in ((1, "x"), (1, "styles"), (2, "x"), (2, "styles")):
    inputs = {"x": jnp.ones((1, 4, 4, 2)), "styles": jnp.ones((1, 2))}
    inputs[changed] = jnp.full_like(inputs[changed], extreme)

    def total(inputs, up=up):
      return jnp.sum(
        convolution.modulated_conv2d(kernel=kernel, up=up, **inputs)
      )

    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(total))(inputs))


def test_other_factors_are_refused():
  with pytest.raises(ValueError, match="up=3"):
    convolution.modulated_conv2d(
      jnp.zeros((1, 2, 2, 1)),
      jnp.zeros((3, 3, 1, 1)),
      jnp.zeros((1, 1)),
      up=3,
    )


@pytest.mark.parametrize(
  "size,stride,padding",
  [
    ((3, 3), 1, "SAME"),
    ((1, 1), 1, "SAME"),
    ((1, 2), 1, ((0, 0), (1, 1))),
    ((2, 2), 1, ((1, 1), (1, 1))),
    ((3, 3), 2, "VALID"),
    ((3, 3), 2, "SAME"),
  ],
)
def test_own_gradients_are_those_that_jax_derives(size, stride, padding):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 7, 8, 3))
  kernel = jax.random.normal(keys[1], (*size, 3, 4))

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def ours(x, kernel):
    return convolution.conv2d(x, kernel, stride=stride, padding=padding)

  want, pull = jax.vjp(plain, x, kernel)
  got, ours_pull = jax.vjp(ours, x, kernel)
  gradient = jax.random.normal(keys[2], want.shape)
  # float32 sums of up to 100 products in another order.
  chex.assert_trees_all_close(
    (got, ours_pull(gradient)), (want, pull(gradient)), atol=1e-4
  )

  def steepness(convolve):
    """What R1 asks for: a gradient of a gradient."""

    def squared(kernel):
      by_x = jax.grad(lambda x: jnp.sum(jnp.sin(convolve(x, kernel))))(x)
      return jnp.sum(jnp.square(by_x))

    return jax.grad(squared)(kernel)

  np.testing.assert_allclose(
    steepness(ours), steepness(plain), rtol=1e-3, atol=1e-3
  )


@pytest.fixture
def tiles_always(monkeypatch):
  monkeypatch.setattr(cpu_convolution, "_MIN_PRODUCTS", 0)


def test_quick_convolution_differs_in_its_fifth_digit_only(tiles_always):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (1, 16, 16, 64))
  kernel = jax.random.normal(keys[1], (3, 3, 64, 64))
  styles = jax.random.normal(keys[2], (1, 64))

  def squares(kernel, quick):
    y = convolution.modulated_conv2d(x, kernel, styles, quick=quick)
    return jnp.sum(jnp.square(y)), y

  (_, got), gradient = jax.value_and_grad(squares, has_aux=True)(kernel, True)
  (_, want), plain = jax.value_and_grad(squares, has_aux=True)(kernel, False)
  # 1e-5 of the std is what F(4x4, 3x3) costs; it is not zero, or it was
  # not used.
  assert 0 < np.abs(got - want).max() < 3e-5 * np.std(want)
  np.testing.assert_allclose(gradient, plain, atol=3e-5 * np.std(plain))


def test_quick_gradients_are_those_of_the_convolution(tiles_always):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 10, 14, 64))
  kernel = jax.random.normal(keys[1], (3, 3, 64, 64))
  target = jax.random.normal(keys[2], (2, 8, 12, 64))

  def objective(x, kernel, quick):
    y = convolution.conv2d(x, kernel, padding="VALID", quick=quick)
    return jnp.sum(target * y)

  got = jax.grad(objective, (0, 1))(x, kernel, True)
  want = jax.grad(objective, (0, 1))(x, kernel, False)
  assert float(abs(got[0] - want[0]).max()) > 0, "tiles were not used"
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5 * np.std(b))
