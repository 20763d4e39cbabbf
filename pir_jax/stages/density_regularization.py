"""EG3D's regulariser of a face's density: its variation between near points.

b batch.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax.runtime import prng
from pir_jax.stages import conditioning

NUM_POINTS = 1000  # As in EG3D.
NEAR = 0.004  # Std of the neighbours' offset, in sides of the box.


def density_variation(
  model: nnx.Module, conditions: conditioning.Inputs, key: Key[Array, ""]
) -> Float[Array, "b"]:
  """Computes the mean absolute difference of density between near points.

  The points are all inside the box: EG3D samples from twice its side, and so
  mostly from the void; its neighbours are as near, for its side is 1. Its
  weight is 0.25, every fourth step.
  """
  box = model.config.renderer.box_warp
  shape = (len(conditions.identity), NUM_POINTS, 3)
  points = jax.random.uniform(
    prng.named(key, "points"), shape, minval=-box / 2, maxval=box / 2
  )
  step = NEAR * box * jax.random.normal(prng.named(key, "near"), shape)
  planes = model.planes(
    model.map(conditions.identity, conditions.expression),
    key=prng.named(key, "noise"),
  )
  density = model.density(planes, jnp.concatenate([points, points + step], 1))
  points, neighbours = jnp.split(density, 2, axis=1)
  return jnp.mean(jnp.abs(points - neighbours), axis=-1)
