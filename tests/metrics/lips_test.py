"""Lip metrics of known displacements, turns and limits."""

import numpy as np
import pytest

from pir_jax.metrics import lips


def _face(num_frames=4, seed=0):
  """Faces upright on the y axis whose inner lips are 0.2 apart."""
  points = np.random.default_rng(seed).normal(size=(num_frames, 468, 3))
  points[:, lips.CHIN], points[:, lips.FOREHEAD] = (0, -3, 0), (0, 5, 0)
  for upper, lower in lips.INNER_LIPS:
    points[:, upper] = points[:, lower] + (0, 0.2, 0)
  return points


def _rotation(seed=0):
  return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def test_vertex_error_is_the_worst_vertex_of_each_frame():
  truth = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
  moved = truth.astype(np.float64)
  moved[0, 2] += (3, 0, 4)  # 5 away; the others of the frame less.
  moved[0, 3] += (0, 1, 0)
  moved[2, 5] += (0, 0, -1)
  # float32 against float64: the truth itself is exact.
  assert lips.lip_vertex_error(moved, truth) == pytest.approx((5 + 0 + 1) / 4)
  assert lips.lip_vertex_error(truth, truth) == 0


def test_vertex_error_is_a_distance_that_no_rotation_changes():
  random = np.random.default_rng(1)
  a, b = random.normal(size=(2, 5, 7, 3))
  turn = _rotation()
  error = lips.lip_vertex_error(a, b)
  assert lips.lip_vertex_error(a @ turn, b @ turn) == pytest.approx(error)
  assert lips.lip_vertex_error(1000 * a, 1000 * b) == pytest.approx(
    1000 * error
  )
  # Not forgiven, as `mouth_distance` does: lips that are moved as a whole.
  assert lips.lip_vertex_error(a + np.array([0, 3, 4.0]), a) == pytest.approx(5)


def test_vertex_error_leaves_frames_without_a_face_out():
  a, b = np.random.default_rng(2).normal(size=(2, 5, 7, 3))
  broken = a.copy()
  broken[1, 3] = np.nan
  keep = [0, 2, 3, 4]
  assert lips.lip_vertex_error(broken, b) == pytest.approx(
    lips.lip_vertex_error(a[keep], b[keep])
  )
  with pytest.raises(ValueError, match="no frame"):
    lips.lip_vertex_error(np.full_like(a, np.nan), b)


def test_opening_is_the_gap_in_the_unit_of_the_points():
  np.testing.assert_allclose(lips.opening(_face()), 0.2)
  np.testing.assert_allclose(lips.opening(50 * _face()), 10)
  np.testing.assert_allclose(lips.opening(_face()[..., :2]), 0.2)
  np.testing.assert_allclose(lips.opening(_face()[0]), 0.2)


def test_opening_of_one_column_counts_a_third():
  points = _face()
  points[1, lips.INNER_LIPS[2][1]] -= (0, 0.3, 0)
  np.testing.assert_allclose(lips.opening(points), [0.2, 0.3, 0.2, 0.2])


@pytest.mark.parametrize("axes", [2, 3])
def test_opening_does_not_see_how_the_head_is_turned(axes):
  points = _face()[..., :axes]
  turn = _rotation(1)
  if axes == 2:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
  moved = points @ turn + np.arange(1.0, axes + 1)
  np.testing.assert_allclose(lips.opening(moved), lips.opening(points))
  # Pictures count y downwards: a mirror, which changes nothing either.
  flipped = points * np.array([1.0, -1.0, 1.0][:axes])
  np.testing.assert_allclose(lips.opening(flipped), lips.opening(points))


def test_lips_through_each_other_are_below_zero_and_smiles_are_not_open():
  points = _face()
  for upper, lower in lips.INNER_LIPS:
    points[0, upper] = points[0, lower] - (0, 0.1, 0)
    points[1, upper] = points[1, lower] + (0.4, 0, 0.3)  # Slid, not opened.
  np.testing.assert_allclose(
    lips.opening(points), [-0.1, 0, 0.2, 0.2], atol=1e-15
  )


def test_opening_of_no_face_is_no_number_and_other_landmarks_are_refused():
  points = _face()
  points[2] = np.nan
  found = np.isfinite(lips.opening(points))
  np.testing.assert_array_equal(found, [True, True, False, True])
  with pytest.raises(ValueError, match="468"):
    lips.opening(np.zeros((4, 68, 2)))


def test_correlation_sees_neither_scale_nor_shift():
  a, b = np.random.default_rng(3).normal(size=(2, 50))
  want = np.corrcoef(a, b)[0, 1]
  assert lips.correlation(a, b) == pytest.approx(want)
  assert lips.correlation(3 * a + 7, b - 2) == pytest.approx(want)
  assert lips.correlation(-1e-200 * a, b) == pytest.approx(-want)
  assert lips.correlation(a, a) == pytest.approx(1)
  assert lips.correlation(a, -a) == pytest.approx(-1)


def test_a_constant_correlates_with_nothing():
  a = np.random.default_rng(4).normal(size=20)
  # 0.1 is no binary fraction: its mean is not exactly itself.
  for constant in (np.full(20, 0.1, np.float32), np.zeros(20)):
    assert lips.correlation(a, constant) == 0.0
    assert lips.correlation(constant, a) == 0.0
    assert lips.correlation(constant, constant) == 0.0


def test_correlation_leaves_frames_without_a_face_out():
  a, b = np.random.default_rng(5).normal(size=(2, 20))
  broken = a.copy()
  broken[3] = np.nan
  keep = np.arange(20) != 3
  assert lips.correlation(broken, b) == pytest.approx(
    lips.correlation(a[keep], b[keep])
  )
  with pytest.raises(ValueError, match="two frames"):
    lips.correlation(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_silence_rank_counts_the_frames_that_are_more_closed():
  spoken = np.arange(10.0)
  assert lips.silence_rank(np.array([-1.0, 0.0, 8.0]), spoken) == 0.0
  assert lips.silence_rank(np.full(3, 4.5), spoken) == pytest.approx(0.5)
  assert lips.silence_rank(np.full(3, 99.0), spoken) == 1.0
  # The order of frames and the unit are of no account.
  turned = lips.silence_rank(np.full(3, 45.0), 10 * spoken[::-1])
  assert turned == pytest.approx(0.5)
  with pytest.raises(ValueError, match="no frame"):
    lips.silence_rank(np.zeros(0), spoken)
