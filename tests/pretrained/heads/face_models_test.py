"""What all imported face models have in common."""

import numpy as np
import pytest
from scipy import spatial

from pir_jax.face import morphable
from pir_jax.pretrained.heads import face_models, importer, landmarks, nearest
from pir_jax.types import InputError


def test_triangles_are_turned_to_the_outside():
  head = morphable.load()
  for triangles in (head.triangles, head.triangles[:, ::-1]):
    found = face_models._outwards(head.mean, triangles)
    corners = head.mean[found].astype(np.float64)
    assert np.linalg.det(corners).sum() > 0


def test_a_skull_is_added_that_nothing_moves():
  head = morphable.load()
  # Half as large and elsewhere: the skull goes with the face.
  points = 0.5 * head.landmark_mean + [0, 0, 1]
  mean, identity, expression = face_models._with_skull(
    points, head.landmark_identity, head.landmark_expression, points, head
  )
  added = len(mean) - len(points)
  assert added > 500
  np.testing.assert_array_equal(mean[:468], points)
  assert not identity[:, 468:].any()
  assert not expression[:, 468:].any()
  back = 2 * (mean[468:] - [0, 0, 1])
  gaps, _ = spatial.cKDTree(head.mean).query(back)
  np.testing.assert_allclose(gaps, 0, atol=1e-6)


def test_a_mesh_that_is_no_face_is_told_in_a_sentence(monkeypatch):
  monkeypatch.setattr(landmarks, "_NUM_STEPS", 2)
  # A ball has no nose, no lips and no chin, but it can be laid over.
  random = np.random.default_rng(0)
  points = random.normal(size=(900, 3))
  points /= 6 * np.linalg.norm(points, axis=1, keepdims=True)
  raw = face_models.Raw(
    name="ball",
    mean=points,
    identity=np.zeros((1, 900, 3)),
    expression=np.zeros((2, 900, 3)),
    triangles=spatial.ConvexHull(points).simplices,
    names=("a", "b"),
    bounded=False,
    unit=1.0,
  )
  with pytest.raises(InputError, match="opens the mouth"):
    face_models.finish(raw, morphable.load())


def test_files_are_asked_for_before_the_work(tmp_path):
  file = tmp_path / "x.mat"
  file.touch()
  for given, words in (
    (("bfm", tmp_path / "no.mat", tmp_path / "a.npz"), "is not there"),
    (("bfm", tmp_path, tmp_path / "a.npz"), "is not a file, as --kind=bfm"),
    (("ict", file, tmp_path / "a.npz"), "is not a folder, as --kind=ict"),
    (("bfm", file, tmp_path / "a.npy"), "must end in .npz"),
    (("flame", file, tmp_path / "no" / "a.npz"), "lie in a folder"),
    (("ict", tmp_path, tmp_path / "a.npz"), "generic_neutral_mesh.obj"),
  ):
    with pytest.raises(InputError, match=words):
      importer.convert(*given)


def test_normals_point_away_from_a_ball():
  triangle = np.array([[0, 1, 2]])
  corners = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
  normal = nearest.triangle_normals(corners, triangle)
  np.testing.assert_allclose(normal, np.full((1, 3), 3**-0.5))
