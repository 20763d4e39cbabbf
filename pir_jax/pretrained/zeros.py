"""A module to be filled from a file, without sampling its initial values."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def module(make: Callable[[], Module]) -> Module:
  """Returns the module of `make` with every array zero.

  Sampling random values that a file then replaces costs a compilation for every
  shape: seconds for a small network.
  """
  graph, state = nnx.split(nnx.eval_shape(make))
  state = jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), state)
  return nnx.merge(graph, state)
