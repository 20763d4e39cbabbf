"""A fixed network's features of the painted and of the true frame should agree.

The learned distance on such features (LPIPS) is `models.vgg.Lpips.distance`.
b batch, h height, w width, c channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# pix2pixHD's weights of the five taps, finest first.
TAP_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def feature_l1(
  features: Sequence[Float[Array, "b _h _w _c"]],
  target: Sequence[Float[Array, "b _h _w _c"]],
  weights: Sequence[float] = TAP_WEIGHTS,
) -> Float[Array, "b"]:
  """Weighted sum over the taps of the L1 between them, as in pix2pixHD.

  pix2pixHD takes VGG19 and its relu1_1 ... relu5_1 without normalising the
  image; ours are whatever taps the features come from. No gradient flows
  through the target.

  Raises:
    ValueError: not one weight a tap.
  """
  if len(weights) != len(features):
    raise ValueError(
      f"{len(features)} taps need as many weights, not {len(weights)}: "
      "pass weights="
    )
  return sum(
    tap_l1(a, b, weight)
    for a, b, weight in zip(features, target, weights, strict=True)
  )


def tap_l1(
  features: Float[Array, "b h w c"],
  target: Float[Array, "b h w c"],
  weight: float = 1.0,
) -> Float[Array, "b"]:
  """What one tap adds to `feature_l1`; float32 whatever the features are."""
  features, target = (x.astype(jnp.float32) for x in (features, target))
  gap = jnp.abs(features - jax.lax.stop_gradient(target))
  return weight * jnp.mean(gap, axis=(1, 2, 3))
