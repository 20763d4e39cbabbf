"""How smooth the density of a face is, measured at random points.

b batch.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax.losses import regularisation
from pir_jax.runtime import prng
from pir_jax.stages import conditioning

NUM_POINTS = 1000  # As in EG3D.
NEAR = 0.004  # Deviation of their neighbours, as a share of the box.


def variation(
  model: nnx.Module, given: conditioning.Inputs, key: Key[Array, ""]
) -> Float[Array, "b"]:
  """Mean difference of a tri-plane generator's density between near points.

  The points are all inside the box: EG3D draws from twice its side, and so
  mostly from the void.
  """
  box = model.config.renderer.box_warp
  shape = (len(given.identity), NUM_POINTS, 3)
  points = jax.random.uniform(
    prng.named(key, "points"), shape, minval=-box / 2, maxval=box / 2
  )
  step = NEAR * box * jax.random.normal(prng.named(key, "near"), shape)
  planes = model.planes(
    model.map(given.identity, given.expression), key=prng.named(key, "noise")
  )
  density = model.density(planes, jnp.concatenate([points, points + step], 1))
  return regularisation.density_variation(*jnp.split(density, 2, axis=1))
