"""A batch worked through in equal parts: gradient accumulation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree


def accumulate(
  function: Callable[[Any, Key[Array, ""]], PyTree],
  batch: Any,
  key: Key[Array, ""],
  num_parts: int,
) -> PyTree:
  """What `function` gives of a batch, as the mean over equal parts of it.

  The parts are worked through one after another, so that the memory is that of
  one. Part j holds rows j, j + num_parts, ...: every device goes on with rows
  of its own, where it has enough for all parts. Means over examples come out as
  of the whole batch, to rounding; what is drawn is drawn for each part, and a
  minibatch deviation is that of the part.

  Args:
    function: (batch, key) -> means over the batch: gradients, metrics.
    batch: arrays whose first axis is that of the examples.
    key: of the draws; a single part takes it as it is.
    num_parts: 1 or more.

  Raises:
    ValueError: the batch has no such equal parts.
  """
  num_rows = len(jax.tree.leaves(batch)[0])
  if num_parts < 1 or num_rows % num_parts:
    raise ValueError(
      f"a batch of {num_rows} has no accumulate={num_parts} equal parts: "
      "choose one that divides it."
    )
  if num_parts == 1:
    return function(batch, key)
  parts = jax.tree.map(
    lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), batch
  )
  inputs = parts, jax.random.split(key, num_parts)
  shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], inputs))
  total, _ = jax.lax.scan(
    lambda total, part: (
      jax.tree.map(jnp.add, total, function(*part)),
      None,
    ),
    jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
    inputs,
  )
  return jax.tree.map(lambda x: x / num_parts, total)
