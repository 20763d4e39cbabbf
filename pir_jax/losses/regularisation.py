"""What is asked of the volume itself, without a picture.

b batch, p points.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def density_variation(
  density: Float[Array, "b p"], neighbours: Float[Array, "b p"]
) -> Float[Array, "b"]:
  """Mean absolute difference of the density between points close by.

  EG3D's regulariser: a thousand uniform points of the box, their neighbours
  displaced by a normal with deviation 0.004 of the box's half side; its weight
  there is 0.25, every fourth step.
  """
  return jnp.mean(jnp.abs(density - neighbours), axis=-1)
