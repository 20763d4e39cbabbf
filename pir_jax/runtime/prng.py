"""Random keys with a name, folded by step: a resumed run draws the same."""

import zlib

import jax
from jaxtyping import Array, Integer, Key


def named(key: Key[Array, ""], name: str) -> Key[Array, ""]:
  """The key of one use; crc32, because Python's own hash differs each run."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at_step(
  key: Key[Array, ""], step: int | Integer[Array, ""]
) -> Key[Array, ""]:
  """The key of one step, whatever happened at the steps before."""
  return jax.random.fold_in(key, step)
