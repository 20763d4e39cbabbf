"""Distance of a discriminator's features of the generated and the real frame.

pix2pixHD (Wang et al. 2018), equation 4.
b batch, h height, w width, c channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def feature_matching(
  features: Sequence[Sequence[Float[Array, "b _h _w _c"]]],
  target: Sequence[Sequence[Float[Array, "b _h _w _c"]]],
) -> Float[Array, "b"]:
  """Sums L1 over every layer of every scale, without gradient to the target.

  Scales are averaged, layers weighted 4 / (number of layers) and summed, as in
  pix2pixHD's code (whose lambda of 10 is left to the caller).
  """
  total = 0.0
  for ours, theirs in zip(features, target, strict=True):
    for a, b in zip(ours, theirs, strict=True):
      # In float32, whatever the discriminator's activations are.
      a, b = a.astype(jnp.float32), b.astype(jnp.float32)
      gap = jnp.mean(jnp.abs(a - jax.lax.stop_gradient(b)), axis=(1, 2, 3))
      total += 4.0 / len(ours) * gap
  return total / len(features)
