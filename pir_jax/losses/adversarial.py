"""GAN losses of the generator and the discriminator.

Every function takes the logits of one discriminator, of any shape after the
batch (one logit, or a map of patches), and averages over it. A multi-scale
discriminator sums these losses over its scales.
b batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from pir_jax.ops import activations


def least_squares(
  logits: Float[Array, "b *patch"], *, real: bool
) -> Float[Array, "b"]:
  """Computes LSGAN (Mao et al. 2017): squared distance to 1 (real) or 0 (fake).

  The discriminator minimises it over real and fake images, each with its own
  label; the generator minimises it over fake images with `real=True`.
  """
  return _mean(jnp.square(logits - float(real)))


def non_saturating(
  logits: Float[Array, "b *patch"], *, real: bool
) -> Float[Array, "b"]:
  """Computes the non-saturating cross entropy (Goodfellow et al. 2014).

  softplus(-logits) for real, softplus(logits) for fake; used like
  `least_squares`. StyleGAN2 and EG3D train with it.
  """
  return _mean(activations.softplus(-logits if real else logits))


def r1_penalty(
  discriminator: Callable[[PyTree], Float[Array, "b *patch"]],
  images: PyTree[Float[Array, "b ..."]],
) -> Float[Array, "b"]:
  """Computes the squared gradient of the logits by the real images.

  The R1 penalty of Mescheder et al. (2018).

  Args:
    discriminator: images -> logits, with its parameters bound.
    images: one array or several (EG3D: the image and the raw image), whose
      squares are summed.

  Returns:
    The squared L2 norm per example, without the customary gamma / 2.
  """
  # One backward pass serves all examples, since each one's logits depend on
  # that example alone (but for the minibatch std, as in StyleGAN2).
  gradients = jax.grad(lambda x: jnp.sum(discriminator(x)))(images)
  return sum(
    jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim)))
    for g in jax.tree.leaves(gradients)
  )


def _mean(values):
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))
