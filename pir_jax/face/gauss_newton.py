"""The least-squares problem of fitting a clip: errors, costs and exact steps.

Frames only touch their neighbours (smoothness) and what the clip shares (the
identity), so the normal equations are block tridiagonal with a border, and a
damped Gauss-Newton step is solved exactly (`solve_bordered`).

t frames, l landmarks, i identity modes, e expression units, q unknowns a frame
(3 rotation, 3 translation, e), s unknowns that the clip shares (i, and the
logarithm of the focal length), p pairs of opposite landmarks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg
from jaxtyping import Array, Float

from pir_jax.face import landmark_squares
from pir_jax.face.landmark_squares import Bases
from pir_jax.geometry import cameras
from pir_jax.types import AnyArray

# Upper and lower points that meet when the mouth or an eye closes.
LIP_PAIRS = (
  (13, 14),
  (82, 87),
  (312, 317),
  (81, 178),
  (311, 402),
  (80, 88),
  (310, 318),
  (191, 95),
  (415, 324),
)
LID_PAIRS = (
  (159, 145),
  (160, 144),
  (158, 153),
  (161, 163),
  (157, 154),
  (386, 374),
  (385, 380),
  (387, 373),
  (388, 390),
  (384, 381),
)
PAIRS = np.array(LIP_PAIRS + LID_PAIRS)
_STILL = 1e-2  # Far below what one landmark weighs.


class State(NamedTuple):
  """The unknowns. Rotation and translation take the head to the camera."""

  rotation: Float[AnyArray, "t 3 3"]
  translation: Float[AnyArray, "t 3"]
  expression: Float[AnyArray, "t e"]
  identity: Float[AnyArray, "i"]
  offset: Float[AnyArray, "l 3"]
  focal: Float[AnyArray, ""]


class Data(NamedTuple):
  """Observed landmarks, in units of face height about the centre.

  The weights are of squared errors, already divided by the noise's square.
  link is the weight of the smoothness to the next frame: 1, and 0 over a cut.
  """

  points: Float[AnyArray, "t l 2"]
  weight: Float[AnyArray, "t l"]
  pair_weight: Float[AnyArray, "t p"]
  link: Float[AnyArray, "n"]


class Priors(NamedTuple):
  """Inverse variances; focal is of its change in one step, relative."""

  identity: Float[AnyArray, ""]
  expression: Float[AnyArray, "e"]
  bound: Float[AnyArray, ""]
  step: Float[AnyArray, "q"]
  huber: Float[AnyArray, ""]
  offset: Float[AnyArray, ""]
  focal: Float[AnyArray, ""]


def _points(state: State, bases: Bases) -> Float[Array, "t l 3"]:
  """Computes landmarks in the camera's frame."""
  shape = bases.mean + state.offset
  shape = shape + jnp.tensordot(state.identity, bases.identity, 1)
  shape = shape + jnp.tensordot(state.expression, bases.expression, 1)
  return shape @ state.rotation.mT + state.translation[:, None]


@jax.jit
def project(state: State, bases: Bases) -> Float[Array, "t l 2"]:
  """Projects landmarks, in units of face height about the centre."""
  points = _points(state, bases)
  return state.focal * points[..., :2] / points[..., 2:]


def errors_of(state: State, data: Data, bases: Bases):
  """Returns projected minus observed, [t l 2] and, for the pairs, [t p 2]."""
  error = project(state, bases) - data.points
  return error, error[:, PAIRS[:, 0]] - error[:, PAIRS[:, 1]]


def _huber_weight(square: Array, limit: Array) -> Array:
  return jnp.minimum(1, limit / jnp.sqrt(jnp.maximum(square, 1e-12)))


@jax.jit
def cost(state, data, bases, priors) -> Float[Array, ""]:
  """Computes the fit's objective, in squared standard errors."""
  error, gap = errors_of(state, data, bases)
  total = 0.0
  for value, weight in ((error, data.weight), (gap, data.pair_weight)):
    square = jnp.sum(value**2, -1) * weight
    limit = priors.huber
    root = jnp.sqrt(jnp.maximum(square, 1e-12))
    total += jnp.sum(
      jnp.where(root < limit, square, 2 * limit * root - limit**2)
    )
  e = state.expression
  out = jnp.minimum(e, 0) ** 2 + jnp.maximum(e - 1, 0) ** 2
  ridge = jnp.sum(e**2 * priors.expression + out * priors.bound, -1)
  total += jnp.sum(ridge)
  total += priors.identity * jnp.sum(state.identity**2)
  total += priors.offset * jnp.sum(state.offset**2)
  steps = _steps(state) ** 2 * data.link[:, None]
  return total + jnp.sum(priors.step * steps)


def _steps(state: State) -> Float[Array, "n q"]:
  """Computes differences of neighbouring frames, rotations as axis-angle."""
  turn = state.rotation[1:] @ state.rotation[:-1].mT
  # The first-order logarithm: from frame to frame a head turns little.
  skew = (turn - turn.mT) / 2
  axis = jnp.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1)
  return jnp.concatenate(
    [
      axis,
      jnp.diff(state.translation, axis=0),
      jnp.diff(state.expression, axis=0),
    ],
    -1,
  )


@jax.jit
def step(state, data, bases, priors, damping):
  """Takes one damped step; returns cost before, new state and cost after.

  Bases without identity modes keep the identity fixed, a large priors.focal
  the focal length.
  """
  hessian, border, corner, gradient, shared = _normal_equations(
    state, data, bases, priors
  )
  q = hessian.shape[-1]
  # Marquardt's scaling by the diagonal, so that radians, head units and
  # coefficients are damped alike.
  hessian += damping * jnp.eye(q) * (jnp.diagonal(hessian, 0, 1, 2)[:, None])
  # A shot without observations keeps its pose.
  hessian += _STILL * jnp.eye(q)
  corner += damping * jnp.diag(jnp.diagonal(corner))
  coupling = data.link[:, None] * priors.step
  move, shared_move = solve_bordered(
    hessian, coupling, border, corner, -gradient, -shared
  )
  trial = moved(state, move, shared_move)
  now = cost(state, data, bases, priors)
  return now, trial, cost(trial, data, bases, priors)


def moved(
  state: State, move: Float[Array, "t q"], shared: Float[Array, "s"]
) -> State:
  """Applies a step to the state."""
  state = state._replace(
    rotation=cameras.rotation_from_axis_angle(move[:, :3]) @ state.rotation,
    translation=state.translation + move[:, 3:6],
    expression=state.expression + move[:, 6:],
    identity=state.identity + shared[:-1],
  )
  return zoomed(state, jnp.exp(shared[-1]))


@jax.jit
def zoomed(state: State, zoom: float | Float[Array, ""]) -> State:
  """Scales the focal length and the head's distance together.

  The image hardly distinguishes the two: a step in one alone would follow a
  curved valley, and be short.
  """
  return state._replace(
    translation=state.translation.at[:, 2].multiply(zoom),
    focal=state.focal * zoom,
  )


@jax.jit
def focal_variance(state, data, bases, priors) -> Float[Array, ""]:
  """Computes the variance of the log focal length, marginalising the rest."""
  hessian, border, corner, gradient, shared = _normal_equations(
    state, data, bases, priors._replace(focal=0.0)
  )
  hessian += _STILL * jnp.eye(hessian.shape[-1])
  coupling = data.link[:, None] * priors.step
  # A unit vector on the right gives the last column of the inverse.
  last = jnp.zeros_like(shared).at[-1].set(1.0)
  _, column = solve_bordered(
    hessian, coupling, border, corner, jnp.zeros_like(gradient), last
  )
  return column[-1]


def _normal_equations(state, data, bases, priors):
  """Computes Hessian blocks, border, corner and gradients."""
  derivatives = landmark_squares.derivatives(
    _points(state, bases), state.rotation, state.translation, state.focal
  )
  # XLA would compute them again in each of the sums.
  derivatives = jax.lax.optimization_barrier(derivatives)
  error, gap = errors_of(state, data, bases)
  weight, pair_weight = (
    weight * _huber_weight(jnp.sum(value**2, -1) * weight, priors.huber)
    for value, weight in ((error, data.weight), (gap, data.pair_weight))
  )
  squares = jax.tree.map(
    jnp.add,
    landmark_squares.of_landmarks(derivatives, bases, error, weight),
    landmark_squares.of_pairs(derivatives, bases, PAIRS, gap, pair_weight),
  )
  e = state.expression
  outside = priors.bound * ((e < 0) | (e > 1))
  ridge = jnp.pad(priors.expression + outside, ((0, 0), (6, 0)))
  pull = priors.expression * e
  pull += priors.bound * (jnp.minimum(e, 0) + jnp.maximum(e - 1, 0))
  link = data.link[:, None]
  change = _steps(state)
  steps = priors.step * link * change
  pull = jnp.pad(pull, ((0, 0), (6, 0)))
  pull += jnp.pad(steps, ((1, 0), (0, 0))) - jnp.pad(steps, ((0, 1), (0, 0)))
  neighbours = jnp.pad(link, ((1, 0), (0, 0))) + jnp.pad(link, ((0, 1), (0, 0)))
  diagonal = ridge + neighbours * priors.step
  # Coefficients are the frame's expression, then the clip's identity; of pose,
  # the last is the clip's focal length.
  pose, mixed, own, identity, pose_error, error = squares
  n = e.shape[1]
  turned = mixed[..., :n].mT
  hessian = jnp.block(
    [[pose[:, :6, :6], mixed[:, :6, :n]], [turned[..., :6], own[..., :n]]]
  )
  hessian += diagonal[..., None] * jnp.eye(6 + n)
  border = jnp.block(
    [[mixed[:, :6, n:], pose[:, :6, 6:]], [own[..., n:], turned[..., 6:]]]
  )
  across = mixed[:, 6:, n:].sum(0)
  corner = jnp.block([[identity, across.T], [across, pose[:, 6:, 6:].sum(0)]])
  ridge = jnp.full(len(state.identity), priors.identity)
  corner += jnp.diag(jnp.append(ridge, priors.focal))
  gradient = jnp.concatenate([pose_error[:, :6], error[:, :n]], -1) + pull
  shared = jnp.append(
    error[:, n:].sum(0) + ridge * state.identity,
    pose_error[:, 6].sum() + jnp.sum(steps[:, 5] * change[:, 5]),
  )
  return hessian, border, corner, gradient, shared


def solve_bordered(
  blocks: Float[Array, "t q q"],
  coupling: Float[Array, "n q"],
  border: Float[Array, "t q s"],
  corner: Float[Array, "s s"],
  right: Float[Array, "t q"],
  right_shared: Float[Array, "s"],
) -> tuple[Float[Array, "t q"], Float[Array, "s"]]:
  """Solves a symmetric positive block tridiagonal system with a border.

  The rows are blocks[t] x[t] - coupling[t-1] x[t-1] - coupling[t] x[t+1] +
  border[t] y = right[t] and sum_t border[t]^T x[t] + corner y = right_shared;
  n is t - 1. Block Thomas elimination, then the Schur complement on y.
  """
  sides = jnp.concatenate([right[..., None], border], -1)
  # Of each frame with the one before it; the first has none.
  before = jnp.pad(coupling, ((1, 0), (0, 0)))
  after = jnp.pad(coupling, ((0, 1), (0, 0)))

  def forward(carry, row):
    inverse, solved = carry
    block, side, near = row
    block = block - near[:, None] * inverse * near
    side = side + near[:, None] * solved
    factor = linalg.cho_factor(block, lower=True)
    inverse = linalg.cho_solve(factor, jnp.eye(len(near)))
    solved = linalg.cho_solve(factor, side)
    return (inverse, solved), (inverse, solved)

  zeros = jnp.zeros_like(blocks[0]), jnp.zeros_like(sides[0])
  _, (inverses, solved) = jax.lax.scan(forward, zeros, (blocks, sides, before))

  def backward(following, row):
    inverse, own, near = row
    value = own + inverse @ (near[:, None] * following)
    return value, value

  _, solved = jax.lax.scan(
    backward, zeros[1], (inverses, solved, after), reverse=True
  )
  plain, per_shared = solved[..., 0], solved[..., 1:]
  schur = corner - jnp.einsum("tqi,tqj->ij", border, per_shared)
  rest = right_shared - jnp.einsum("tqi,tq->i", border, plain)
  shared = linalg.cho_solve(linalg.cho_factor(schur, lower=True), rest)
  return plain - per_shared @ shared, shared


@jax.jit
def update_offset(state, data, bases, priors) -> State:
  """Solves for each landmark's fixed offset, by its errors over all frames.

  Opposite points of lips and eyelids share their offset in height and depth:
  separate ones would hide an open mouth.
  """
  points = _points(state, bases)
  error, _ = errors_of(state, data, bases)
  slope = points[..., :2] / points[..., 2:]
  rows = (
    state.rotation[:, :2][:, None]
    - slope[..., None] * (state.rotation[:, 2:][:, None])
  )
  rows = rows * (state.focal / points[..., 2])[..., None, None]
  square = jnp.sum(error**2, -1) * data.weight
  weight = data.weight * _huber_weight(square, priors.huber)
  normal = jnp.einsum("tl,tlkc,tlkd->lcd", weight, rows, rows)
  normal += priors.offset * jnp.eye(3)
  pull = jnp.einsum("tl,tlkc,tlk->lc", weight, rows, error)
  pull += priors.offset * state.offset
  offset = state.offset - jnp.linalg.solve(normal, pull[..., None])[..., 0]
  upper, lower = PAIRS.T
  middle = (offset[upper] + offset[lower])[:, 1:] / 2
  offset = offset.at[upper, 1:].set(middle).at[lower, 1:].set(middle)
  return state._replace(offset=offset)
