"""Random keys with a name, folded by step: a resumed run has the same ones."""

import zlib

import jax
import jax.numpy as jnp
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


def cheap_to_compile(key: Key[Array, ""]) -> Key[Array, ""]:
  """Returns a key that samples by XLA's own generator.

  It takes XLA's CPU backend two seconds to compile one random array of JAX's
  default generator, with all optimisations, and a tenth of one by this. Its
  values differ from platform to platform, and under `vmap` from those without
  it; over accelerators each would compute those of all.
  """
  words = jax.random.key_data(key)
  return jax.random.wrap_key_data(jnp.tile(words, 2), impl="rbg")
