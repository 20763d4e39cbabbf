"""The game of the inpainting network against a judge of patches.

LSGAN on a multi-scale PatchGAN that sees the masked frame beside the picture,
and feature matching, as in pix2pixHD.
b batch, h height, w width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.losses import adversarial, feature_matching
from pir_jax.models import patch_discriminator

Judge = patch_discriminator.MultiscaleDiscriminator
Image = Float[Array, "b h w 3"]


def painter_terms(
  judge: Judge, seen: Image, image: Image, target: Image
) -> dict[str, Float[Array, "b"]]:
  """What the painted image has to answer for."""
  fake = judge(jnp.concatenate([seen, image], axis=-1))
  real = judge(jnp.concatenate([seen, target], axis=-1))
  return {
    "adversarial": _judged(fake, real=True),
    "feature_matching": feature_matching.feature_matching(
      fake.features, real.features
    ),
  }


def critic_loss(
  judge: Judge, seen: Image, image: Image, target: Image
) -> Float[Array, ""]:
  """Half the sum of both kinds, as published."""
  fake = judge(jnp.concatenate([seen, image], axis=-1))
  real = judge(jnp.concatenate([seen, target], axis=-1))
  return 0.5 * jnp.mean(_judged(real, real=True) + _judged(fake, real=False))


def _judged(
  output: patch_discriminator.PatchOutput, *, real: bool
) -> Float[Array, "b"]:
  """LSGAN summed over the scales."""
  return sum(
    adversarial.least_squares(logits, real=real) for logits in output.logits
  )
