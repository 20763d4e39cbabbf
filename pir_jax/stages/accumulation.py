"""Gradient accumulation: a batch in equal parts, one after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree


def accumulate(
  function: Callable[[Any, Key[Array, ""]], PyTree],
  batch: Any,
  key: Key[Array, ""],
  num_parts: int,
) -> PyTree:
  """Averages `function` over equal parts of a batch.

  The parts are computed one after another, so that the memory is that of one.
  Part j holds rows j, j + num_parts, ...: every device keeps rows of its own,
  where it has enough for all parts. Means over examples equal those of the
  whole batch, to rounding; each part has a random key and a minibatch std of
  its own.

  Args:
    function: (batch, key) -> means over the batch: gradients, metrics.
    batch: arrays whose first axis is that of the examples.
    key: split over the parts; a single part takes it as it is.
    num_parts: 1 or more.

  Raises:
    ValueError: the batch cannot be split into equal parts.
  """
  num_rows = len(jax.tree.leaves(batch)[0])
  if num_parts < 1 or num_rows % num_parts:
    raise ValueError(
      f"accumulate={num_parts} must divide the batch of {num_rows} examples."
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


def accumulate_grad(
  objective: Callable[
    [PyTree, Any, Key[Array, ""]], tuple[Float[Array, ""], PyTree]
  ],
  params: PyTree,
  batch: Any,
  key: Key[Array, ""],
  num_parts: int,
) -> tuple[PyTree, PyTree]:
  """Computes (gradient by `params`, metrics) of a loss, part by part.

  Args:
    objective: (params, batch, key) -> (mean loss, metrics).
    params: to be differentiated by.
    batch: see `accumulate`, as for `key` and `num_parts`.
    key: of the loss.
    num_parts: 1 or more.
  """
  gradient = jax.grad(objective, has_aux=True)
  return accumulate(
    lambda batch, key: gradient(params, batch, key), batch, key, num_parts
  )
