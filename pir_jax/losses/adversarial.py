"""What the two players of an adversarial game pay.

Every function takes the logits of one judge, whatever their shape after the
batch (one number, or a map of patches), and means over it; a multi-scale judge
is a sum of these over its scales.
b batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def least_squares(
  logits: Float[Array, "b *patch"], *, real: bool
) -> Float[Array, "b"]:
  """LSGAN (Mao et al. 2017): squared distance to 1 (real) or 0 (not).

  The discriminator pays it for both kinds, each with its own label; the
  generator pays it for its frames with `real=True`.
  """
  return _mean(jnp.square(logits - float(real)))


def non_saturating(
  logits: Float[Array, "b *patch"], *, real: bool
) -> Float[Array, "b"]:
  """Cross entropy (Goodfellow et al. 2014) in its non-saturating use.

  softplus(-logits) for real, softplus(logits) for not; used like
  `least_squares`. StyleGAN2 and EG3D train with it.
  """
  return _mean(jax.nn.softplus(-logits if real else logits))


def r1_penalty(
  judge: Callable[[PyTree], Float[Array, "b *patch"]],
  images: PyTree[Float[Array, "b ..."]],
) -> Float[Array, "b"]:
  """Squared gradient of the logits by the real images (Mescheder et al. 2018).

  Args:
    judge: images -> logits, with the parameters already in it.
    images: one array or several (EG3D: the image and the raw image), each of
      which counts.

  Returns:
    The squared L2 norm per example, without the customary gamma / 2.
  """
  # One backward pass serves all examples, since each one's logits depend on
  # that example alone (but for the minibatch deviation, as in StyleGAN2).
  gradients = jax.grad(lambda x: jnp.sum(judge(x)))(images)
  return sum(
    jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim)))
    for g in jax.tree.leaves(gradients)
  )


def _mean(values):
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))
