"""Multi-head attention with a cache, and what goes with it, as PyTorch has it.

b batch, t tokens, s remembered tokens, d width, h heads, c channels of a head,
n rows (b h).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pir_jax.types import ConfigError


def dropout(
  x: Float[Array, "*b"], dropout_rate: float, key: Array | None
) -> Float[Array, "*b"]:
  """Zeroes a share of x and scales the rest; a None key keeps all."""
  if key is None or dropout_rate == 0.0:
    return x
  keep = jax.random.bernoulli(key, 1.0 - dropout_rate, x.shape)
  return jnp.where(keep, x / (1.0 - dropout_rate), 0.0)


def subkeys(key: Array | None, num: int) -> list[Array | None]:
  """Splits a key; a None key gives Nones."""
  return [None] * num if key is None else list(jax.random.split(key, num))


# PyTorch's own, under which the recipe is known; it initialises query, key and
# value as one stacked map, hence their other scale.
_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_STACKED = nnx.initializers.variance_scaling(0.5, "fan_in", "uniform")


def linear(
  size_in: int,
  size_out: int,
  *,
  dtype: str,
  rngs: nnx.Rngs,
  bias: bool = True,
) -> nnx.Linear:
  """Returns an affine map that starts as PyTorch's does."""
  bound = size_in**-0.5
  return nnx.Linear(
    size_in,
    size_out,
    use_bias=bias,
    kernel_init=_UNIFORM,
    bias_init=lambda key, shape, dtype: jax.random.uniform(
      key, shape, dtype, -bound, bound
    ),
    dtype=jnp.dtype(dtype),
    rngs=rngs,
  )


class Memory(NamedTuple):
  """Keys and values of s tokens, n = b h rows.

  With b and h apart, XLA copies a cache several times at every update.
  """

  keys: Float[Array, "n s c"]
  values: Float[Array, "n s c"]


class Attention(nnx.Module):
  """Multi-head attention whose keys and values may come from a cache."""

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs,
  ):
    """Declares the four maps."""
    if width % num_heads:
      raise ConfigError(
        f"width={width} must be a multiple of {num_heads} heads"
      )
    self.num_heads = num_heads

    def plain(init):
      return nnx.Linear(
        width, width, kernel_init=init, dtype=jnp.dtype(dtype), rngs=rngs
      )

    self.query, self.key, self.value = (plain(_STACKED) for _ in range(3))
    self.out = plain(_UNIFORM)

  def keys_values(self, x: Float[Array, "b s d"]) -> Memory:
    """Computes the keys and the values of s tokens."""
    return Memory(self._heads(self.key(x)), self._heads(self.value(x)))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    memory: Memory,
    bias: Float[Array, "#h t s"],
    *,
    dropout_rate: float = 0.0,
    key: Array | None = None,
  ) -> Float[Array, "b t d"]:
    """Attends from x to a memory under an additive bias."""
    query = self._heads(self.query(x))
    bias = jnp.tile(bias, (len(query) // len(bias), 1, 1))
    logits = jnp.einsum(
      "ntc,nsc->nts",
      query,
      memory.keys,
      preferred_element_type=jnp.float32,
    )
    logits = logits * query.shape[-1] ** -0.5 + bias
    weights = dropout(jax.nn.softmax(logits, axis=-1), dropout_rate, key)
    mixed = jnp.einsum(
      "nts,nsc->ntc", weights.astype(query.dtype), memory.values
    )
    mixed = mixed.reshape(len(x), self.num_heads, *mixed.shape[1:])
    return self.out(mixed.swapaxes(1, 2).reshape(x.shape))

  def _heads(self, x):
    """(b s d) -> (b h s c) -> (n s c)."""
    x = x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)
    return x.reshape(-1, *x.shape[2:])
