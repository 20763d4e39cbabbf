"""Counts the operations of a program, with loops multiplied.

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
  """Counts the operations of one call, over all devices together.

  What a gradient computes again (rematerialisation) is counted again. A loop
  whose length depends on data counts once, and of branches the longest.

  Args:
    function: may be jitted.
    *arguments: arrays, or only their shapes and dtypes.
  """
  return of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_jaxpr(jaxpr: core.Jaxpr) -> float:
  """Counts the operations of a traced program, see `count`."""
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
  """Counts products, except those with inserted or surrounding zeros."""
  params = equation.params
  axes = params["dimension_numbers"]
  image, kernel = (variable.aval.shape for variable in equation.invars[:2])
  result = equation.outvars[0].aval.shape
  pairs = 1.0
  for axis, (low, _) in enumerate(params["padding"]):
    pairs *= _num_pairs(
      image[axes.lhs_spec[2 + axis]],
      kernel[axes.rhs_spec[2 + axis]],
      result[axes.out_spec[2 + axis]],
      low,
      params["window_strides"][axis],
      params["lhs_dilation"][axis],
      params["rhs_dilation"][axis],
    )
  batch = image[axes.lhs_spec[0]] / params["batch_group_count"]
  inputs, outputs = kernel[axes.rhs_spec[1]], kernel[axes.rhs_spec[0]]
  return 2.0 * batch * inputs * outputs * pairs


def _num_pairs(num_in, num_weights, num_out, low, stride, dilation, spread):
  """Counts how often a weight meets an input along one axis."""
  length = (num_in - 1) * dilation + 1
  pairs = 0
  for weight in range(num_weights):
    # Output o reads place o * stride + start, of which every `dilation`th is
    # an input.
    start = weight * spread - low
    first = max(0, -(start // stride))
    last = min(num_out - 1, (length - 1 - start) // stride)
    if last < first:
      continue
    period = dilation // math.gcd(stride, dilation)
    places = range(first, min(last, first + period - 1) + 1)
    for o in places:
      if (o * stride + start) % dilation == 0:
        pairs += (last - o) // period + 1
  return pairs
