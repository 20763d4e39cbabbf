"""The head model: its frame and unit, and what its units do."""

import chex
import numpy as np
import pytest
from scipy import spatial

from pir_jax.face import gauss_newton, morphable
from pir_jax.types import InputError

NAMES = morphable.EXPRESSION_NAMES


@pytest.fixture(scope="module")
def model():
  return morphable.load()


def _assert_equal(*models):
  """Arrays and words of two models."""
  trees = [
    {k: v for k, v in m._asdict().items() if isinstance(v, np.ndarray)}
    for m in models
  ]
  chex.assert_trees_all_equal(*trees)
  words = [
    {k: v for k, v in m._asdict().items() if not isinstance(v, np.ndarray)}
    for m in models
  ]
  assert words[0] == words[1]


def _strength(name):
  return np.eye(len(NAMES), dtype=np.float32)[NAMES.index(name)]


def test_head_is_upright_faces_z_and_fits_the_box(model):
  points = model.landmark_mean
  brow, chin, nose = points[10], points[152], points[1]
  assert brow[1] > chin[1]
  assert nose[2] > brow[2]
  # The subject's right eye is on the viewer's left.
  assert points[33, 0] < 0 < points[263, 0]
  head = model.mean[model.mean[:, 1] >= chin[1]]
  assert np.abs(head).max() < 0.4  # Leaves a fifth of the box for hair.


def test_unit_is_such_that_one_metre_is_2_7(model):
  # A face measures about 12 cm from the brow's top to the chin (11 to 15).
  height = np.ptp(model.landmark_mean[[10, 152], 1]) / 2.7
  assert 0.11 < height < 0.16
  # Outer corners of the eyes lie about 9 cm apart.
  eyes = np.ptp(model.landmark_mean[[33, 263], 0]) / 2.7
  assert 0.07 < eyes < 0.1


def test_landmarks_are_points_of_the_mesh(model):
  rng = np.random.default_rng(0)
  identity = rng.normal(size=(2, 80)).astype(np.float32)
  expression = rng.uniform(size=(2, 52)).astype(np.float32)
  mesh = np.asarray(morphable.vertices(model, identity, expression))
  expected = np.einsum(
    "blkc,lk->blc", mesh[:, model.landmark_triangles], model.landmark_weights
  )
  got = morphable.landmarks(model, identity, expression)
  np.testing.assert_allclose(got, expected, atol=1e-5)  # float32 sums of 132.


def test_triangles_face_outwards(model):
  corners = model.mean[model.triangles].astype(np.float64)
  volume = np.linalg.det(corners).sum() / 6
  assert volume > 0


@pytest.mark.parametrize(
  ("name", "upper", "lower"),
  [("eyeBlinkRight", 159, 145), ("eyeBlinkLeft", 386, 374)],
)
def test_blink_closes_its_own_eye(model, name, upper, lower):
  zero = np.zeros(80, np.float32)

  def gap(points):
    return float(points[upper, 1] - points[lower, 1])

  opened = gap(morphable.landmarks(model, zero, np.zeros(52, np.float32)))
  closed = gap(morphable.landmarks(model, zero, _strength(name)))
  other = gap(
    morphable.landmarks(
      model,
      zero,
      _strength({"eyeBlinkLeft": "eyeBlinkRight"}.get(name, "eyeBlinkLeft")),
    )
  )
  assert opened > 0.01
  assert closed <= 0
  assert other == pytest.approx(opened, abs=1e-4)


def test_jaw_opens_downwards_and_leaves_the_brow(model):
  move = model.landmark_expression[NAMES.index("jawOpen")]
  assert move[14, 1] < -0.05  # The lower lip.
  assert move[152, 1] < -0.05  # The chin.
  assert np.abs(move[10]).max() < 1e-3


def test_identity_neither_moves_nor_scales_the_face(model):
  points = model.mean[np.unique(model.landmark_triangles)].astype(np.float64)
  basis = model.identity_basis[:, np.unique(model.landmark_triangles)]
  # float32 storage of a sum over hundreds of vertices.
  np.testing.assert_allclose(basis.mean(1), 0, atol=1e-6)
  turn = np.cross(points, basis).mean(1)
  np.testing.assert_allclose(turn, 0, atol=1e-6)
  np.testing.assert_allclose((points * basis).mean((1, 2)), 0, atol=1e-6)


def test_identity_modes_are_ordered_and_independent(model):
  flat = model.identity_basis.reshape(80, -1).astype(np.float64)
  size = np.linalg.norm(flat, axis=1)
  assert (np.diff(size) <= 0).all()
  cosine = flat @ flat.T / size / size[:, None]
  np.testing.assert_allclose(cosine, np.eye(80), atol=1e-4)


def test_second_load_reads_the_same_from_the_cache(model):
  _assert_equal(morphable.load(), model)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A machine that has loaded no face model yet."""
  folder = tmp_path / "cache"
  monkeypatch.setattr(morphable.assets, "cache_directory", lambda: folder)
  return folder


@pytest.fixture
def small(model):
  """A model of few modes and units, of another name."""
  return model._replace(
    identity_basis=model.identity_basis[:2],
    expression_basis=model.expression_basis[:3],
    landmark_identity=model.landmark_identity[:2],
    landmark_expression=model.landmark_expression[:3],
    name="small",
    expression_names=("a", "b", "c"),
    bounded=False,
    jaw=np.float32([0, 1, 2]),
  )


def test_a_saved_model_is_loaded_as_it_was(small, tmp_path, cache):
  made = morphable.save(small, tmp_path / "small.npz")
  again = morphable.load(tmp_path / "small.npz")
  assert made.sha256 == again.sha256 != small.sha256
  _assert_equal(again, small._replace(sha256=again.sha256))
  assert morphable.jaw_open(again).tolist() == [0, 1, 2]


def test_a_loaded_model_is_found_again_by_its_hash(small, tmp_path, cache):
  made = morphable.save(small, tmp_path / "small.npz")
  (tmp_path / "small.npz").unlink()
  assert morphable.recorded(made.sha256).name == "small"
  for path in cache.rglob("*.npz"):
    path.unlink()
  with pytest.raises(InputError, match="small .*is not on this machine: copy"):
    morphable.recorded(made.sha256, "small")


def test_the_open_head_needs_no_file(model):
  assert morphable.recorded("").name == "open head"
  assert morphable.recorded(model.sha256).name == "open head"


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"mean": np.zeros((5, 3), np.float32)}, "identity_basis has shape"),
    ({"jaw": np.float32([0, np.nan, 1])}, "jaw has values that are not finite"),
    ({"expression_names": ("a", "a", "c")}, "2 different names for 3"),
    (
      {"triangles": np.full((4, 3), 10**6, np.int32)},
      "triangles has indices of missing vertices",
    ),
    (
      {"landmark_weights": np.ones((468, 3), np.float32)},
      "do not sum to one",
    ),
  ],
)
def test_parts_that_do_not_fit_are_named(small, tmp_path, changes, words):
  broken = small._replace(**changes)
  with pytest.raises(ValueError, match=words):
    morphable.save(broken, tmp_path / "x.npz")
  fields = broken._asdict()
  del fields["sha256"]
  np.savez(tmp_path / "x.npz", format=1, **fields)
  with pytest.raises(InputError, match=words):
    morphable.load(tmp_path / "x.npz")


def test_files_that_are_no_model_are_refused_with_the_fix(tmp_path):
  path = tmp_path / "x.npz"
  with pytest.raises(InputError, match="there is no face model"):
    morphable.load(path)
  path.write_bytes(b"nothing of the sort")
  with pytest.raises(InputError, match="not a face model of this project"):
    morphable.load(path)
  np.savez(path, mean=np.zeros(3))
  with pytest.raises(InputError, match="not a face model of this release"):
    morphable.load(path)
  np.savez(path, format=1, mean=np.zeros(3), extra=np.zeros(3))
  with pytest.raises(
    InputError, match="missing or unknown arrays bounded, .*extra"
  ):
    morphable.load(path)
  np.savez(path, format=1, mean=np.array([object()]))
  with pytest.raises(InputError, match="not a face model of this project"):
    morphable.load(path)


def test_each_lip_s_landmarks_lie_on_that_lip(model):
  jaw = np.tensordot(model.jaw, model.landmark_expression, 1)
  upper, lower = np.array(gauss_newton.LIP_PAIRS).T
  # The lower lip goes down with the jaw, the upper one hardly follows.
  assert (jaw[lower, 1] < 2.5 * jaw[upper, 1] - 0.01).all()
  gap = model.landmark_mean[upper] - model.landmark_mean[lower]
  # At rest they touch: 2 mm are 0.0054 head units.
  assert np.linalg.norm(gap, axis=-1).max() < 0.0054


def test_no_landmark_lies_behind_the_face(model):
  # A ray through the closed mouth meets the throat, ten centimetres behind.
  points = model.landmark_mean
  near = spatial.cKDTree(points[:, :2]).query(points[:, :2], 6)[1]
  behind = np.median(points[near, 2], axis=1) - points[:, 2]
  assert behind.max() < 0.08


def test_landmarks_are_alike_on_both_sides(model):
  points = model.landmark_mean
  distance, _ = spatial.cKDTree(points).query(points * [-1, 1, 1])
  # A millimetre; the slanting inner rim of the lips is the worst.
  assert distance.max() < 0.0027
