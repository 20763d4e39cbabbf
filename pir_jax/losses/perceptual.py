"""Distance of a fixed network's features of two images.

The learned distance on such features (LPIPS) is `models.vgg.Lpips.distance`.
b batch, h height, w width, c channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# pix2pixHD's weights of the five layers, finest first.
LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def feature_l1(
  features: Sequence[Float[Array, "b _h _w _c"]],
  target: Sequence[Float[Array, "b _h _w _c"]],
  weights: Sequence[float] = LAYER_WEIGHTS,
) -> Float[Array, "b"]:
  """Computes the weighted sum of the layers' L1 distances, as in pix2pixHD.

  pix2pixHD takes VGG19 and its relu1_1 ... relu5_1 without normalising the
  image; this function takes the features of any layers. No gradient flows
  through the target.

  Raises:
    ValueError: the number of weights is not that of the layers.
  """
  if len(weights) != len(features):
    raise ValueError(
      f"{len(features)} layers need as many weights, not {len(weights)}: "
      "pass weights="
    )
  return sum(
    layer_l1(a, b, weight)
    for a, b, weight in zip(features, target, weights, strict=True)
  )


def layer_l1(
  features: Float[Array, "b h w c"],
  target: Float[Array, "b h w c"],
  weight: float = 1.0,
) -> Float[Array, "b"]:
  """Computes one layer's part of `feature_l1`, in float32 for any dtype."""
  features, target = (x.astype(jnp.float32) for x in (features, target))
  gap = jnp.abs(features - jax.lax.stop_gradient(target))
  return weight * jnp.mean(gap, axis=(1, 2, 3))
