"""Landmarks are found again on another mesh of another person."""

import numpy as np
import pytest

from pir_jax.face import morphable
from pir_jax.pretrained.heads import landmarks
from pir_jax.types import InputError


@pytest.fixture(scope="module")
def head():
  return morphable.load()


def _finer(vertices, triangles):
  """Each triangle cut in four, the vertices in another order."""
  ends = np.concatenate([triangles[:, [k, (k + 1) % 3]] for k in range(3)])
  edges, place = np.unique(np.sort(ends), axis=0, return_inverse=True)
  middle = len(vertices) + place.reshape(3, -1)
  (a, b, c), (ab, bc, ca) = triangles.T, middle
  faces = np.concatenate(
    [
      np.stack(corners, 1)
      for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    ]
  )
  vertices = np.concatenate([vertices, vertices[edges].mean(1)])
  order = np.random.default_rng(0).permutation(len(vertices))
  return vertices[order], np.argsort(order)[faces]


@pytest.mark.slow
def test_landmarks_of_another_person_are_found_without_marks(head):
  # Someone the identity modes know, bent as they do not; tilted and larger.
  person = np.random.default_rng(2).normal(size=80)
  cosine, sine = np.cos(0.1), np.sin(0.1)
  turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])

  def shaped(mean, modes):
    points = mean + np.tensordot(person, modes, 1)
    points = points + 0.004 * np.sin(9 * points[:, [1, 2, 0]])
    return 1.05 * points @ turn.T + [0.02, 0.1, -0.2]

  mesh = _finer(shaped(head.mean, head.identity_basis), head.triangles)
  true = shaped(head.landmark_mean, head.landmark_identity)
  found = landmarks.embed(landmarks.lay_over(*mesh, head), head)
  assert found.valid.all()
  miss = np.linalg.norm(landmarks.at(found, mesh[0]) - true, axis=1)
  millimetres = miss / 2.7 * 1000
  assert np.sqrt(np.mean(millimetres**2)) < 1.5
  assert np.sqrt(np.mean(millimetres[morphable.LIPS] ** 2)) < 1.0
  np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-6)


def test_jaw_of_the_open_head_is_its_own_unit(head):
  own = landmarks.jaw_of(
    head.landmark_expression, head.expression_names, head.landmark_valid, head
  )
  np.testing.assert_allclose(own, morphable.jaw_open(head), atol=1e-6)
  # A unit twice as strong is asked for half as much.
  twice = landmarks.jaw_of(
    2 * head.landmark_expression,
    head.expression_names,
    head.landmark_valid,
    head,
  )
  np.testing.assert_allclose(2 * twice, own, atol=1e-6)


def test_marks_that_are_no_face_are_refused(head):
  true = head.landmark_mean[landmarks.INNER_51].astype(np.float64)

  def start(points):
    marked = landmarks.marked_68(np.concatenate([np.zeros((17, 3)), points]))
    landmarks.lay_over(head.mean, head.triangles, head, marked)

  with pytest.raises(InputError, match="looks along z"):
    start(true[::-1])
  with pytest.raises(InputError, match="looks along z"):
    start(true * [-1, 1, -1])
  with pytest.raises(InputError, match="10 times as large"):
    start(10 * true)


def test_expressions_must_open_the_mouth(head):
  found = landmarks.Embedding(
    head.landmark_triangles,
    head.landmark_weights,
    head.landmark_valid,
    0.0,
  )
  jaw = morphable.jaw_open(head)
  down = landmarks.lowered_by(jaw, head.expression_basis, found)
  lips = down[found.triangles[[17, 13]]]
  assert lips[0] @ found.weights[17] == pytest.approx(1)
  assert abs(lips[1] @ found.weights[13]) < 0.1
  with pytest.raises(InputError, match="opens the mouth"):
    landmarks.lowered_by(0 * jaw, head.expression_basis, found)
