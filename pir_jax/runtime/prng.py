"""Random keys with a name, folded by step: a resumed run has the same ones."""

import zlib

import jax
from jaxtyping import Array, Integer, Key


def named(key: Key[Array, ""], name: str) -> Key[Array, ""]:
  """Returns the key of one use."""
  # Not Python's own hash: it differs from run to run.
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at_step(
  key: Key[Array, ""], step: int | Integer[Array, ""]
) -> Key[Array, ""]:
  """Returns the key of one step, whatever happened at the steps before."""
  return jax.random.fold_in(key, step)
