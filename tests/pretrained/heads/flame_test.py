"""FLAME's pickle of chumpy's objects, written as Python 2 did, and read."""

import io
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from pir_jax.face import morphable
from pir_jax.pretrained.heads import flame, importer
from pir_jax.types import InputError

JOINT = np.array([0.0, -0.03, -0.02])  # Of the jaw, metres: before the ears.


class _Python2(pickle._Pickler):
  """Writes bytes and text as the strings of Python 2."""

  dispatch = dict(pickle._Pickler.dispatch)

  def _string(self, data):
    data = data if isinstance(data, bytes) else data.encode("ascii")
    self.write(b"T" + struct.pack("<i", len(data)) + data)

  dispatch[bytes] = dispatch[str] = _string


def _dumps(value) -> bytes:
  stream = io.BytesIO()
  _Python2(stream, 2).dump(value)
  return stream.getvalue()


@pytest.fixture
def chumpy(monkeypatch):
  """Classes of chumpy's and old scipy's names: a pickle keeps only these."""
  made = {}
  monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
  for module, name in (
    ("chumpy.ch", "Ch"),
    ("chumpy.reordering", "Select"),
    ("scipy.sparse.csc", "csc_matrix"),
  ):
    kind = type(name, (), {"__module__": module})
    place = types.ModuleType(module)
    setattr(place, name, kind)
    monkeypatch.setitem(sys.modules, module, place)

    def build(kind=kind, **state):
      thing = kind()
      vars(thing).update(state)
      return thing

    made[name] = build
  return types.SimpleNamespace(**made)


def make_arrays(foreign):
  """The arrays of generic_model.pkl, dense."""
  random = np.random.default_rng(0)
  metres = 2.7
  mean = foreign.mean / metres
  count = len(mean)
  shapes = np.zeros((count, 3, 400))
  shapes[..., :4] = np.moveaxis(foreign.identity, 0, -1) / metres
  mixed = np.linalg.qr(random.normal(size=(60, 52)))[0]
  motions = np.tensordot(mixed, foreign.expression, 1) / metres
  shapes[..., 300:360] = np.moveaxis(motions, 0, -1)
  # The jaw carries what the open head's jawOpen carries.
  opened = foreign.expression[morphable.EXPRESSION_NAMES.index("jawOpen")]
  share = np.clip(np.linalg.norm(opened, axis=1) / 0.09, 0, 1)
  weights = np.zeros((count, 5))
  weights[:, 2], weights[:, 1] = share, 1 - share
  regressor = np.zeros((5, count))
  regressor[:, np.linalg.norm(mean - JOINT, axis=1).argsort()[:50]] = 1 / 50
  corrections = np.zeros((count, 3, 36))
  corrections[:, 2, 9:18] = 1e-3 * share[:, None]
  return {
    "v_template": mean,
    "shapedirs": shapes,
    "posedirs": corrections,
    "J_regressor": regressor,
    "weights": weights,
    "f": foreign.triangles.astype(np.uint32),
    "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
  }


def write(path, arrays, chumpy, **changes):
  """As published: chumpy's arrays, a view of one, a sparse matrix."""
  columns = sparse.csc_array(arrays["J_regressor"])
  matrix = chumpy.csc_matrix(
    _shape=columns.shape,
    indptr=columns.indptr,
    indices=columns.indices,
    data=columns.data,
    format="csc",
    maxprint=50,
  )
  whole = chumpy.Ch(x=arrays["v_template"].ravel(), _dirty_vars=set())
  view = chumpy.Select(
    a=whole,
    idxs=np.arange(arrays["v_template"].size),
    preferred_shape=arrays["v_template"].shape,
  )
  published = {
    key: chumpy.Ch(x=arrays[key], _dirty_vars=set(), _itr=None)
    for key in ("shapedirs", "posedirs", "weights")
  }
  published |= {
    "v_template": view,
    "J_regressor": matrix,
    "f": arrays["f"],
    "kintree_table": arrays["kintree_table"],
    "bs_style": "lbs",
  }
  published = {k: v for k, v in (published | changes).items() if v is not None}
  path.write_bytes(_dumps(published))
  return path


@pytest.fixture(scope="module")
def arrays(small_foreign):
  return make_arrays(small_foreign)


def test_pickle_and_npz_are_read_alike(arrays, chumpy, tmp_path):
  path = write(tmp_path / "generic_model.pkl", arrays, chumpy)
  np.savez(tmp_path / "flame.npz", **arrays)
  found = flame.read(path)
  same = flame.read(tmp_path / "flame.npz")
  for a, b in zip(found[1:5], same[1:5], strict=True):
    np.testing.assert_array_equal(a, b)
  assert len(found.identity) == 300
  assert len(found.expression) == len(found.names) == 101
  np.testing.assert_array_equal(found.mean, arrays["v_template"])


def test_jaw_turns_about_its_joint(arrays):
  # A point that the jaw carries whole is turned; corrections are added first.
  one = arrays | {"posedirs": np.zeros_like(arrays["posedirs"])}
  moved = flame._jaw_unit(one)
  whole = arrays["weights"][:, 2] == 1
  joint = (arrays["J_regressor"] @ arrays["v_template"])[2]
  before = arrays["v_template"][whole] - joint
  after = before + moved[whole]
  # It keeps its distance from the axis and goes down by JAW_ANGLE.
  axis = [1, 2]
  np.testing.assert_allclose(
    np.linalg.norm(after[:, axis], axis=1),
    np.linalg.norm(before[:, axis], axis=1),
  )
  angle = np.arctan2(*before[:, [2, 1]].T) - np.arctan2(*after[:, [2, 1]].T)
  np.testing.assert_allclose(np.abs(angle), flame.JAW_ANGLE, atol=1e-9)
  assert (moved[whole, 1] < 0).all()
  assert not moved[arrays["weights"][:, 2] == 0].any()
  turned = flame._jaw_unit(arrays)
  assert np.abs(turned - moved).max() > 1e-6


@pytest.mark.slow
def test_landmarks_are_found_and_the_jaw_has_a_name(
  arrays, small_foreign, tmp_path
):
  np.savez(tmp_path / "flame.npz", **arrays)
  made = importer.convert("flame", tmp_path / "flame.npz", tmp_path / "x.npz")
  misses = small_foreign.misses(made.model)
  assert np.sqrt(np.mean(misses**2)) < 1.5
  assert not made.model.bounded
  jaw = morphable.jaw_open(made.model)
  assert np.flatnonzero(jaw).tolist() == [100]
  assert 0.3 < jaw[100] < 3
  moves = np.tensordot(jaw, made.model.landmark_expression, 1)
  assert moves[14, 1] < -0.05
  assert abs(moves[13, 1]) < 0.01
  assert "landmarks" in importer.report(made)


def test_flames_own_landmarks_are_taken(arrays, small_foreign, tmp_path):
  chosen = np.setdiff1d(np.arange(0, 468, 5), [10])
  triangles, mean = small_foreign.triangles, small_foreign.mean
  gaps = mean[triangles].mean(1) - small_foreign.points[chosen, None]
  faces = np.linalg.norm(gaps, axis=-1).argmin(1)
  np.savez(
    tmp_path / "own.npz",
    lmk_face_idx=faces,
    lmk_b_coords=np.full((len(chosen), 3), 1 / 3),
    landmark_indices=chosen,
  )
  np.savez(tmp_path / "flame.npz", **arrays)
  raw = flame.read(tmp_path / "flame.npz", tmp_path / "own.npz")
  np.testing.assert_allclose(
    raw.marked.points, mean[triangles[faces]].mean(1) / 2.7, atol=1e-9
  )
  np.testing.assert_array_equal(raw.marked.landmarks, chosen)
  np.savez(tmp_path / "own.npz", lmk_face_idx=faces)
  with pytest.raises(InputError, match="mediapipe_landmark_embedding"):
    flame.read(tmp_path / "flame.npz", tmp_path / "own.npz")


def test_code_in_the_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for hostile in (
    b"cposix\nsystem\n(S'touch ran'\ntR.",
    b"cchumpy.ch\nMatVecMult\n(tR.",
    b"cscipy.sparse\nload_npz\n(S'x'\ntR.",
    b"cnumpy\nload\n(S'x'\ntR.",
  ):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(hostile)
    with pytest.raises(InputError, match="which no FLAME models need"):
      flame.read(path)
  assert not (tmp_path / "ran").exists()


def test_another_file_is_told_in_a_sentence(arrays, chumpy, tmp_path):
  path = tmp_path / "x.pkl"
  for changes, words in (
    ({"shapedirs": None, "f": None}, "no shapedirs, f"),
    ({"shapedirs": arrays["shapedirs"][..., :100]}, "shapedirs has shape"),
    ({"f": arrays["f"] + np.uint32(10**6)}, "f names vertices"),
    ({"weights": chumpy.Ch(y=1)}, "an array of an unknown kind"),
    ({"J_regressor": chumpy.csc_matrix(a=1)}, "without a shape"),
  ):
    with pytest.raises(InputError, match=words):
      flame.read(write(path, arrays, chumpy, **changes))
  path.write_bytes(_dumps([1, 2]))
  with pytest.raises(InputError, match="holds no dict"):
    flame.read(path)
  path.write_bytes(b"nothing of the sort")
  with pytest.raises(InputError, match="damaged or no file of FLAME models"):
    flame.read(path)
