"""Sums of squares of derivatives of the landmarks, for all frames at once.

By a coefficient, the derivative of an image point is a product of [2, 3] of the
frame with the landmark's direction. Their sums of squares are therefore one
matrix product: of six values a frame and landmark with products of directions,
which depend on the head alone.

t frames, l landmarks, i identity modes, e expression units, m = e + i
coefficients, k pairs of coefficients, p pairs of opposite landmarks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pir_jax.types import AnyArray

_AXES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class Bases(NamedTuple):
  """The head model at the landmarks, see `bases`.

  Attributes:
    mean: of the landmarks.
    identity, expression: what a coefficient adds.
    products: of the directions of two coefficients along two axes.
  """

  mean: Float[AnyArray, "l 3"]
  identity: Float[AnyArray, "i l 3"]
  expression: Float[AnyArray, "e l 3"]
  products: Float[AnyArray, "6*l k"]


class Squares(NamedTuple):
  """Sums over the landmarks of weighted products of derivatives.

  By pose they are 3 rotations, 3 translations and the logarithm of the focal
  length. Those of two coefficients of identity are summed over the frames, too.

  Attributes:
    pose: two of pose.
    mixed: one of pose, one of the coefficients.
    expression: one of expression, one of the coefficients.
    identity: two of identity.
    pose_error: one of pose, and the error.
    error: one of the coefficients, and the error.
  """

  pose: Float[Array, "t 7 7"]
  mixed: Float[Array, "t 7 m"]
  expression: Float[Array, "t e m"]
  identity: Float[Array, "i i"]
  pose_error: Float[Array, "t 7"]
  error: Float[Array, "t m"]


def bases(
  mean: Float[AnyArray, "l 3"],
  identity: Float[AnyArray, "i l 3"],
  expression: Float[AnyArray, "e l 3"],
) -> Bases:
  """Prepares a head model, with what does not depend on the frames."""
  # By NumPy, as all that is done once: JAX would compile each operation.
  directions = np.concatenate([expression, identity]).transpose(2, 1, 0)
  one, other = np.triu_indices(len(expression), m=directions.shape[-1])
  a, b = directions[..., one], directions[..., other]
  products = [a[c] * b[d] + (a[d] * b[c] if c != d else 0) for c, d in _AXES]
  arrays = mean, identity, expression, np.concatenate(products)
  return Bases(*jax.device_put([np.asarray(x, np.float32) for x in arrays]))


class Derivatives(NamedTuple):
  """Derivatives of image points; by a coefficient, times its direction.

  Attributes:
    pose: by pose and focal length.
    point: by the landmark, head frame.
  """

  pose: Float[Array, "t 2 7 l"]
  point: Float[Array, "t 2 3 l"]


def derivatives(
  points: Float[Array, "t l 3"],
  rotation: Float[AnyArray, "t 3 3"],
  translation: Float[AnyArray, "t 3"],
  focal: Float[AnyArray, ""],
) -> Derivatives:
  """Computes derivatives of projected landmarks.

  Args:
    points: in the camera's frame.
    rotation: of the head to the camera.
    translation: likewise.
    focal: length; by its logarithm, with the head's distance in proportion.
  """
  points = points.mT  # Many landmarks lie together, few axes do not.
  slope = points[:, :2] / points[:, 2:]
  eye = jnp.broadcast_to(
    jnp.eye(2)[..., None], (*slope.shape[:2], *slope.shape[1:])
  )
  rows = jnp.concatenate([eye, -slope[:, :, None]], 2)
  rows = rows * (focal / points[:, 2])[:, None, None]
  local = points - translation[..., None]
  zoom = focal * slope[:, :, None]
  zoom += rows[:, :, 2:] * translation[:, None, 2:, None]
  pose = [jnp.cross(local[:, None], rows, axis=2), rows, zoom]
  # Three products: a batch of small matrices is slow to multiply.
  point = sum(
    rows[:, :, c, None] * rotation[:, None, c, :, None] for c in range(3)
  )
  return Derivatives(jnp.concatenate(pose, 2), point)


def of_landmarks(
  derivatives: Derivatives,
  bases: Bases,
  error: Float[Array, "t l 2"],
  weight: Float[Array, "t l"],
) -> Squares:
  """Sums up what single landmarks add."""
  pose, point = derivatives
  num_frames, num_landmarks = weight.shape
  directions = _directions(bases.expression, bases.identity)
  weighted = point * weight[:, None, None]

  def project(values: Float[Array, "t 2 n l"]) -> Float[Array, "t n m"]:
    """Multiplies with the derivatives by the coefficients."""
    rows = _over_axes(values[:, :, :, None], weighted[:, :, None])
    rows = rows.reshape(-1, 3 * num_landmarks)
    result = rows @ directions.reshape(3 * num_landmarks, -1)
    return result.reshape(num_frames, -1, result.shape[-1])

  six = jnp.concatenate(
    [_over_axes(weighted[:, :, c], point[:, :, d]) for c, d in _AXES], -1
  )
  pairs = six @ bases.products
  index = _square(len(bases.expression), directions.shape[-1])
  total = jnp.einsum("tkcl,tkdl->cdl", weighted, point)
  identity = directions[..., len(bases.expression) :]
  error = error.mT[:, :, None]
  return Squares(
    pose=jnp.einsum("tkpl,tkql->tpq", pose * weight[:, None, None], pose),
    mixed=project(pose),
    expression=pairs[:, index],
    identity=jnp.einsum("cli,cdl,dlj->ij", identity, total, identity),
    pose_error=(pose * (error * weight[:, None, None])).sum((1, 3)),
    error=project(error)[:, 0],
  )


def of_pairs(
  derivatives: Derivatives,
  bases: Bases,
  pairs: Int[np.ndarray, "p 2"],
  gap: Float[Array, "t p 2"],
  weight: Float[Array, "t p"],
) -> Squares:
  """Sums up what differences of two landmarks add."""
  directions = _directions(bases.expression, bases.identity)
  e, num_frames = len(bases.expression), len(gap)

  def rows_of(side: int) -> Float[Array, "t 2 p n"]:
    index = pairs[:, side]
    point, across = derivatives.point[..., index], directions[:, index]
    coefficients = sum(point[:, :, c, :, None] * across[c] for c in range(3))
    pose = derivatives.pose[..., index].mT
    return jnp.concatenate([pose, coefficients], -1)

  rows = (rows_of(0) - rows_of(1)).reshape(num_frames, 2 * len(pairs), -1)
  scaled = rows * jnp.tile(weight, 2)[..., None]
  full = rows.mT @ scaled
  error = jnp.einsum("trn,tr->tn", scaled, gap.mT.reshape(num_frames, -1))
  return Squares(
    pose=full[:, :7, :7],
    mixed=full[:, :7, 7:],
    expression=full[:, 7 : 7 + e, 7:],
    identity=full[:, 7 + e :, 7 + e :].sum(0),
    pose_error=error[:, :7],
    error=error[:, 7:],
  )


def _over_axes(
  one: Float[Array, "t 2 *_"], other: Float[Array, "t 2 *_"]
) -> Float[Array, "t *_"]:
  """Sums up products over x and y: quicker than a reduction over two."""
  return one[:, 0] * other[:, 0] + one[:, 1] * other[:, 1]


def _directions(expression, identity) -> Float[Array, "3 l m"]:
  return jnp.concatenate([expression, identity]).transpose(2, 1, 0)


def _square(e: int, m: int) -> Int[np.ndarray, "e m"]:
  """Returns which pair of coefficients each one of two is."""
  rows, columns = np.triu_indices(e, m=m)
  index = np.zeros((e, m), int)
  index[rows, columns] = np.arange(len(rows))
  index[:, :e] = np.maximum(index[:, :e], index[:, :e].T)
  return index
