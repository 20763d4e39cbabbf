"""Operations are those that a person would count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from pir_jax.runtime import flops


def shape(*sides):
  return jax.ShapeDtypeStruct(sides, jnp.float32)


def test_the_interface_this_leans_on_is_there():
  assert callable(core.jaxprs_in_params)


def test_a_product_is_two_operations_a_triple():
  found = flops.count(jnp.matmul, shape(3, 5), shape(5, 7))
  assert found == 2 * 3 * 5 * 7
  batched = flops.count(
    lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
    shape(4, 3, 5),
    shape(4, 5, 7),
  )
  assert batched == 4 * found


def test_a_loop_counts_as_often_as_it_runs_and_a_jit_once():
  @jax.jit
  def loop(x):
    return jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=9)[0]

  assert flops.count(loop, shape(4, 4)) == 9 * 2 * 4**3


def test_of_branches_the_longest_counts():
  def either(x, first):
    return jax.lax.cond(first, lambda: x @ x @ x, lambda: x @ x)

  found = flops.count(either, shape(4, 4), jax.ShapeDtypeStruct((), bool))
  assert found == 2 * 2 * 4**3


def test_what_is_computed_again_counts_again():
  def power(x):
    for _ in range(3):
      x = jnp.sin(x @ x)
    return jnp.sum(x)

  once = flops.count(jax.grad(power), shape(4, 4))
  again = flops.count(jax.grad(jax.checkpoint(power)), shape(4, 4))
  assert once == 9 * 2 * 4**3  # Forwards once, backwards twice.
  assert again > once


def pairs(num_in, num_taps, num_out, low, stride, dilation, spread):
  """One by one."""
  found = 0
  for o in range(num_out):
    for tap in range(num_taps):
      place = o * stride + tap * spread - low
      inside = 0 <= place <= (num_in - 1) * dilation
      found += inside and place % dilation == 0
  return found


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("low", [-1, 0, 2])
def test_products_with_zeros_are_not_counted(stride, dilation, spread, low):
  num_in, num_taps, high = 7, 3, 2
  length = (num_in - 1) * dilation + 1 + low + high
  num_out = (length - (num_taps - 1) * spread - 1) // stride + 1
  want = pairs(num_in, num_taps, num_out, low, stride, dilation, spread)

  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, 1),
      [(low, high), (0, 0)],
      (dilation, 1),
      (spread, 1),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  found = flops.count(
    convolve, shape(2, num_in, 4, 3), shape(num_taps, 1, 3, 5)
  )
  assert found == 2 * 2 * 4 * 3 * 5 * want


def test_groups_meet_their_own_channels_only():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1,),
      "VALID",
      feature_group_count=2,
      dimension_numbers=("NWC", "WIO", "NWC"),
    )

  found = flops.count(convolve, shape(1, 8, 6), shape(1, 3, 4))
  assert found == 2 * 8 * 3 * 4


def test_a_gradient_by_the_kernel_is_as_much_as_forwards():
  x, kernel = shape(2, 9, 9, 3), shape(3, 3, 3, 5)

  def convolve(x, kernel):
    return jnp.sum(
      jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
      )
      ** 2
    )

  forwards = flops.count(convolve, x, kernel)
  both = flops.count(jax.grad(convolve, argnums=1), x, kernel)
  np.testing.assert_allclose(both, 2 * forwards)
