"""Distances of sequences of coefficients.

b batch, t frames, e coefficients.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def squared_error(
  prediction: Float[Array, "b t e"],
  target: Float[Array, "b t e"],
  valid: Float[Array, "b t"],
) -> Float[Array, "b"]:
  """Computes the mean square over valid frames; 0 where none is valid."""
  error = jnp.mean((prediction - target) ** 2, axis=-1)
  count = jnp.maximum(jnp.sum(valid, axis=1), 1.0)
  return jnp.sum(error * valid, axis=1) / count
