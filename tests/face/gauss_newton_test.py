"""The fit's algebra: exact solves, and derivatives that are derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.face import gauss_newton, landmark_squares
from pir_jax.geometry import cameras


def test_bordered_solve_equals_a_dense_one():
  rng = np.random.default_rng(0)
  t, q, i = 5, 4, 3
  coupling = rng.uniform(0.5, 1.5, (t - 1, q))
  coupling[2] = 0  # A cut.
  size = t * q + i
  dense = np.zeros((size, size))
  blocks = np.zeros((t, q, q))
  for k in range(t):
    root = rng.normal(size=(q, q))
    # Diagonally dominant over its two neighbours and the border.
    blocks[k] = root @ root.T + 8 * np.eye(q)
    rows = slice(k * q, (k + 1) * q)
    dense[rows, rows] = blocks[k]
    if k:
      before = slice((k - 1) * q, k * q)
      dense[rows, before] = dense[before, rows] = -np.diag(coupling[k - 1])
  border = rng.normal(size=(t, q, i))
  corner = 20 * np.eye(i)
  dense[: t * q, t * q :] = border.reshape(-1, i)
  dense[t * q :, : t * q] = border.reshape(-1, i).T
  dense[t * q :, t * q :] = corner
  right = rng.normal(size=size)
  expected = np.linalg.solve(dense, right)
  arrays = (
    blocks,
    coupling,
    border,
    corner,
    right[: t * q].reshape(t, q),
    right[t * q :],
  )
  move, shared = gauss_newton.solve_bordered(
    *(jnp.asarray(a, jnp.float32) for a in arrays)
  )
  # float32 on a system with condition number of about ten.
  np.testing.assert_allclose(
    move.reshape(-1), expected[: t * q], rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(shared, expected[t * q :], rtol=1e-4, atol=1e-5)


def _problem(num_frames=3, num_identity=2, num_expression=4):
  """A small problem with everything switched on and nothing at its minimum."""
  rng = np.random.default_rng(1)
  points = 468

  def array(*shape, scale=1.0):
    return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

  bases = landmark_squares.bases(
    array(points, 3, scale=0.2),
    array(num_identity, points, 3, scale=0.02),
    array(num_expression, points, 3, scale=0.02),
  )
  # Frames turned by hundredths of a radian: the smoothness term takes the
  # rotation between frames to first order.
  turn = array(num_frames, 3, scale=0.02)
  facing = jnp.diag(jnp.array([1.0, -1.0, -1.0]))
  state = gauss_newton.State(
    cameras.rotation_from_axis_angle(turn) @ facing,
    array(num_frames, 3, scale=0.05) + jnp.array([0.0, 0.0, 2.7]),
    array(num_frames, num_expression) + 0.5,
    array(num_identity),
    array(points, 3, scale=0.01),
    jnp.float32(6.0),
  )
  pairs = len(gauss_newton.PAIRS)
  data = gauss_newton.Data(
    array(num_frames, points, 2, scale=0.5),
    jnp.abs(array(num_frames, points)),
    jnp.abs(array(num_frames, pairs)),
    jnp.array([1.0, 0.0]),
  )
  priors = gauss_newton.Priors(
    jnp.float32(3.0),
    jnp.full(num_expression, 5.0),
    jnp.float32(50.0),
    jnp.linspace(1.0, 9.0, 6 + num_expression),
    jnp.float32(0.3),  # So that many points are in the linear part.
    jnp.float32(1.0),
    jnp.float32(0.0),
  )
  return state, data, bases, priors


def test_gradient_of_the_normal_equations_is_that_of_the_cost():
  state, data, bases, priors = _problem()
  num_frames = len(state.translation)
  num_expression = state.expression.shape[1]

  def cost(move, shared):
    moved = gauss_newton.moved(state, move, shared)
    return gauss_newton.cost(moved, data, bases, priors) / 2

  zero = jnp.zeros((num_frames, 6 + num_expression))
  expected = jax.jit(jax.grad(cost, argnums=(0, 1)))(zero, jnp.zeros(3))
  *_, gradient, shared = jax.jit(gauss_newton._normal_equations)(
    state, data, bases, priors
  )
  scale = float(jnp.abs(expected[0]).max())
  # float32 sums of a thousand rows, and second-order terms of the turn
  # between frames, which the linear smoothness leaves out.
  np.testing.assert_allclose(gradient, expected[0], atol=2e-3 * scale)
  np.testing.assert_allclose(shared, expected[1], rtol=1e-3, atol=1e-3)


def test_offset_step_lowers_every_error_and_ties_pairs():
  state, data, bases, priors = _problem()
  priors = priors._replace(huber=jnp.float32(1e9), offset=jnp.float32(1e-3))

  def error(s):
    value, _ = gauss_newton.errors_of(s, data, bases)
    return np.asarray(jnp.sum(data.weight[..., None] * value**2, (0, 2)))

  # Close to its minimum, as in a fit: the projection is then nearly linear.
  exact, _ = gauss_newton.errors_of(state, data, bases)
  data = data._replace(points=data.points + 0.98 * exact)
  after = gauss_newton.update_offset(state, data, bases, priors)
  upper, lower = gauss_newton.PAIRS.T
  free = np.delete(np.arange(468), np.concatenate([upper, lower]))
  assert (error(after) < error(state))[free].all()
  np.testing.assert_array_equal(
    after.offset[upper, 1:], after.offset[lower, 1:]
  )


def test_focal_variance_is_that_of_the_dense_problem():
  state, data, bases, priors = _problem()
  hessian, border, corner, *_ = gauss_newton._normal_equations(
    state, data, bases, priors
  )
  t, q, _ = hessian.shape
  dense = np.zeros((t * q + len(corner),) * 2)
  for k in range(t):
    rows = slice(k * q, (k + 1) * q)
    dense[rows, rows] = hessian[k] + gauss_newton._STILL * np.eye(q)
    dense[rows, t * q :] = border[k]
    dense[t * q :, rows] = np.asarray(border[k]).T
  for k in range(t - 1):
    rows, after = slice(k * q, (k + 1) * q), slice((k + 1) * q, (k + 2) * q)
    dense[rows, after] = dense[after, rows] = -np.diag(
      data.link[k] * priors.step
    )
  dense[t * q :, t * q :] = corner
  expected = np.linalg.inv(dense)[-1, -1]
  got = gauss_newton.focal_variance(state, data, bases, priors)
  np.testing.assert_allclose(got, expected, rtol=1e-2)


def test_normal_equations_are_products_of_derivatives():
  state, data, bases, priors = _problem()
  # All errors count by their squares, and nothing but errors counts.
  priors = priors._replace(huber=jnp.float32(1e9))
  free = jax.tree.map(jnp.zeros_like, priors)._replace(huber=priors.huber)
  num_frames, n = state.expression.shape
  num_shared = len(state.identity) + 1

  @jax.jit
  @jax.jacfwd
  def derivatives(x):
    move, shared = x[:-num_shared].reshape(num_frames, -1), x[-num_shared:]
    moved = gauss_newton.moved(state, move, shared)
    errors = gauss_newton.errors_of(moved, data, bases)
    weights = data.weight, data.pair_weight
    return jnp.concatenate(
      [
        (error * jnp.sqrt(weight)[..., None]).ravel()
        for error, weight in zip(errors, weights, strict=True)
      ]
    )

  jacobian = derivatives(jnp.zeros(num_frames * (6 + n) + num_shared))
  expected = np.asarray(jacobian.T @ jacobian)
  hessian, border, corner, *_ = jax.jit(gauss_newton._normal_equations)(
    state, data, bases, free
  )
  scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
  last = slice(num_frames * (6 + n), None)
  for frame in range(num_frames):
    rows = slice(frame * (6 + n), (frame + 1) * (6 + n))
    for got, place in (
      (hessian[frame], (rows, rows)),
      (border[frame], (rows, last)),
    ):
      error = np.abs(got - expected[place]) / scale[place]
      assert error.max() < 1e-4
  assert (
    np.abs(corner - expected[last, last]) / scale[last, last]
  ).max() < 1e-4
