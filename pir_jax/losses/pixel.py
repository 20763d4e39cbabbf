"""Distance of a frame from its target, pixel by pixel.

b batch, h height, w width, c channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l1(
  image: Float[Array, "b h w c"], target: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
  """Computes the mean absolute difference."""
  return jnp.mean(jnp.abs(image - target), axis=(1, 2, 3))


def weighted_l1(
  image: Float[Array, "b h w c"],
  target: Float[Array, "b h w c"],
  weight: Float[Array, "b h w 1"],
) -> Float[Array, "b"]:
  """Computes the weighted mean absolute difference; `l1` if weights are equal.

  The weights (a mask, or more on the mouth) are those of a mean, so a small
  face counts as much as a large one; weights that are all 0 give 0.
  """
  difference = jnp.mean(jnp.abs(image - target), axis=-1, keepdims=True)
  total = jnp.sum(weight, axis=(1, 2, 3))
  # The inner `where` keeps the gradient finite where there is no weight.
  safe = jnp.where(total > 0, total, 1)
  mean = jnp.sum(weight * difference, axis=(1, 2, 3)) / safe
  return jnp.where(total > 0, mean, 0)
