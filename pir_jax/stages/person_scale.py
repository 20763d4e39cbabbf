"""Expressions as deviations from a person's own mean, by their own spread.

People rest and articulate differently; both are known from a clip before any of
its speech is used.
b batch, t frames, e expression coefficients, p coordinates of lip points.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pir_jax.types import AnyArray, ExpressionStats, FaceSpace

SMALLEST = 0.1  # Spread of who hardly moves, as a share of all people's.


def lip_motion(
  space: FaceSpace, basis: Float[AnyArray, "e p"] | None
) -> Float[np.ndarray, "e p"] | None:
  """Returns how one std of each coefficient moves lips, its squares' sum 1.

  Args:
    space: of the coefficients.
    basis: motion by one unit of each; None stays None.
  """
  if basis is None:
    return None
  moved = np.asarray(basis) * np.asarray(space.expression_scale)[:, None]
  return moved / np.sqrt(np.sum(np.square(moved)))


def spread(
  space: FaceSpace,
  stats: ExpressionStats,
  lips: Float[AnyArray, "e p"] | None,
) -> Float[Array, "*b"]:
  """Computes how far a person's lips move, as a share of the space's.

  Args:
    space: of the coefficients.
    stats: of the person.
    lips: see `lip_motion`; None counts the coefficients themselves.
  """
  share = jnp.asarray(stats.std) / space.expression_scale
  if lips is None:
    square = jnp.mean(jnp.square(share), -1)
  else:
    square = jnp.square(share) @ jnp.sum(jnp.square(lips), -1)
  return jnp.maximum(jnp.sqrt(square), SMALLEST)


def to_relative(
  space: FaceSpace,
  expression: Float[AnyArray, "*b t e"],
  stats: ExpressionStats | None,
  lips: Float[AnyArray, "e p"] | None,
) -> Float[Array, "*b t e"]:
  """Standardises raw expressions; around the person's mean, by their spread.

  Args:
    space: of the coefficients.
    expression: raw.
    stats: of the person; None takes the space's own mean and scale.
    lips: see `spread`.
  """
  standard = space.standardise(jnp.asarray(expression))
  if stats is None:
    return standard
  mean = space.standardise(jnp.asarray(stats.mean))[..., None, :]
  return (standard - mean) / spread(space, stats, lips)[..., None, None]


def from_relative(
  space: FaceSpace,
  relative: Float[AnyArray, "*b t e"],
  stats: ExpressionStats | None,
  lips: Float[AnyArray, "e p"] | None,
) -> Float[Array, "*b t e"]:
  """Inverts `to_relative`: returns raw expressions."""
  if stats is None:
    return space.restore(jnp.asarray(relative))
  mean = space.standardise(jnp.asarray(stats.mean))[..., None, :]
  scale = spread(space, stats, lips)[..., None, None]
  return space.restore(relative * scale + mean)
