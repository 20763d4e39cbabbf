"""How many operations a program is: products and sums, loops multiplied.

XLA's own count takes the body of a loop once however often it runs; this one
walks the traced program. Only matrix products and convolutions are counted, two
operations for a product and its sum, as is the custom for model FLOPs.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count(function: Callable[..., Any], *arguments: Any) -> float:
  """Operations of one call, over all devices together.

  What a gradient computes again (rematerialisation) is counted again. A loop
  whose length depends on data counts once, and of branches the longest.

  Args:
    function: may be jitted.
    *arguments: arrays, or only their shapes and dtypes.
  """
  return of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_jaxpr(jaxpr: core.Jaxpr) -> float:
  """`count`, of what is traced already."""
  return sum((_of_equation(equation) for equation in jaxpr.eqns), 0.0)


def _of_equation(equation) -> float:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    summed = math.prod(shape[i] for i in contracted)
    return 2.0 * summed * equation.outvars[0].aval.size
  if name == "conv_general_dilated":
    return _of_convolution(equation)
  inner = [of_jaxpr(jaxpr) for jaxpr in core.jaxprs_in_params(params)]
  if name == "scan":
    return params["length"] * sum(inner)
  if name == "cond":
    return max(inner)
  return float(sum(inner))


def _of_convolution(equation) -> float:
  """Products with inserted or surrounding zeros are not counted."""
  params = equation.params
  numbers = params["dimension_numbers"]
  given, kernel = (variable.aval.shape for variable in equation.invars[:2])
  result = equation.outvars[0].aval.shape
  pairs = 1.0
  for axis, (low, _) in enumerate(params["padding"]):
    pairs *= _num_pairs(
      given[numbers.lhs_spec[2 + axis]],
      kernel[numbers.rhs_spec[2 + axis]],
      result[numbers.out_spec[2 + axis]],
      low,
      params["window_strides"][axis],
      params["lhs_dilation"][axis],
      params["rhs_dilation"][axis],
    )
  batch = given[numbers.lhs_spec[0]] / params["batch_group_count"]
  inputs, outputs = kernel[numbers.rhs_spec[1]], kernel[numbers.rhs_spec[0]]
  return 2.0 * batch * inputs * outputs * pairs


def _num_pairs(num_in, num_taps, num_out, low, stride, dilation, spread):
  """How often a tap meets a true input along one axis."""
  length = (num_in - 1) * dilation + 1
  found = 0
  for tap in range(num_taps):
    # Output o reads place o * stride + start, of which every `dilation`th is
    # an input.
    start = tap * spread - low
    first = max(0, -(start // stride))
    last = min(num_out - 1, (length - 1 - start) // stride)
    if last < first:
      continue
    period = dilation // math.gcd(stride, dilation)
    places = range(first, min(last, first + period - 1) + 1)
    for o in places:
      if (o * stride + start) % dilation == 0:
        found += (last - o) // period + 1
  return found
