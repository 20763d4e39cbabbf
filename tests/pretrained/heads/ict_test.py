"""ICT-FaceKit's folder of OBJ files, written small and read."""

import json
import pathlib

import numpy as np
import pytest

from pir_jax.face import morphable
from pir_jax.pretrained.heads import ict, importer
from pir_jax.types import InputError

UNIT = 0.027  # Head units a centimetre.
NAMES = ict.expression_names()


def _offsets(foreign, name):
  """The open head's motion for an expression of the kit."""
  name = ict.arkit_name(name)
  if name in morphable.EXPRESSION_NAMES:
    return foreign.expression[morphable.EXPRESSION_NAMES.index(name)]
  whole = name.removesuffix("Left").removesuffix("Right")
  half = foreign.expression[morphable.EXPRESSION_NAMES.index(whole)]
  side = foreign.mean[:, :1] > 0
  return half * (side if name.endswith("Left") else ~side)


def write(folder, foreign, places=None):
  """A folder as FaceXModel is: polygons with texture numbers, no normals."""
  folder.mkdir()
  corners = foreign.triangles + 1
  polygons = "".join(f"f {a}/{a} {b}/{b} {c}/{c}\n" for a, b, c in corners)

  def mesh(name, offsets):
    points = (foreign.mean + offsets) / UNIT + [0, 1, -2]
    rows = "".join(f"v {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in points)
    text = f"mtllib x.mtl\n{rows}vt 0.5 0.5\ng face\n{polygons}"
    (folder / f"{name}.obj").write_text(text)

  mesh("generic_neutral_mesh", 0)
  for k, offsets in enumerate(foreign.identity):
    mesh(f"identity{k:03d}", offsets)
  for name in NAMES:
    mesh(name, _offsets(foreign, name))
  places = foreign.places if places is None else places
  record = {
    "expressions": list(NAMES),
    "idx_to_landmark_verts": [int(place) for place in places],
  }
  (folder / "vertex_indices.json").write_text(json.dumps(record))
  return folder


@pytest.fixture(scope="module")
def folder(small_foreign, tmp_path_factory):
  return write(tmp_path_factory.mktemp("ict") / "FaceXModel", small_foreign)


@pytest.fixture(scope="module")
def model(folder):
  # The kit's own folder is as good as the one in it.
  return importer.convert("ict", folder.parent, folder.parent / "ict.npz").model


@pytest.mark.slow
def test_expressions_are_the_kits_53_under_arkits_names(model):
  assert len(NAMES) == len(model.expression_names) == 53
  assert {"browInnerUp_L", "cheekPuff_R", "jawLeft", "mouthClose"} < set(NAMES)
  own = set(model.expression_names) - set(morphable.EXPRESSION_NAMES)
  halves = {"browInnerUp", "cheekPuff"}
  assert own == {h + s for h in halves for s in ("Left", "Right")}
  assert model.bounded
  assert len(model.identity_basis) == 4


@pytest.mark.slow
def test_landmarks_are_found_and_the_unit_is_kept(model, small_foreign):
  misses = small_foreign.misses(model)
  assert np.sqrt(np.mean(misses**2)) < 1.5
  size = np.ptp(small_foreign.mean, axis=0)
  np.testing.assert_allclose(np.ptp(model.mean, axis=0), size, rtol=1e-5)
  # And the landmarks lie about where the open head has them.
  np.testing.assert_allclose(
    model.landmark_mean.mean(0),
    morphable.load().landmark_mean.mean(0),
    atol=1e-5,
  )


@pytest.mark.slow
def test_lips_that_touch_are_told_apart(model):
  moves = np.tensordot(morphable.jaw_open(model), model.landmark_expression, 1)
  assert moves[14, 1] < -0.06
  assert np.abs(moves[[13, 82, 312], 1]).max() < 0.01
  jaw = morphable.jaw_open(model)
  assert np.flatnonzero(jaw).tolist() == [
    model.expression_names.index("jawOpen")
  ]
  assert jaw.max() == pytest.approx(1, abs=0.1)


def test_names_are_arkits_but_for_what_is_halved():
  assert len(NAMES) == 53
  assert ict.arkit_name("browInnerUp_L") == "browInnerUpLeft"
  assert ict.arkit_name("jawLeft") == "jawLeft"
  named = {ict.arkit_name(name) for name in NAMES}
  assert len(named & set(morphable.EXPRESSION_NAMES)) == 49


def test_landmarks_are_those_that_lie_on_the_face(small_foreign, monkeypatch):
  # One of two tables belongs to the mesh; the other is of another release.
  head, mean = morphable.load(), small_foreign.mean / UNIT
  right = tuple(int(place) for place in small_foreign.places)
  wrong = tuple(np.random.default_rng(0).permutation(len(mean))[:68].tolist())
  for given, readme in ((right, wrong), (wrong, right), (None, right)):
    monkeypatch.setattr(ict, "_LANDMARKS", readme)
    assert ict._landmarks("x", mean, UNIT, given, head)[0] == right
  monkeypatch.setattr(ict, "_LANDMARKS", (10**6,) * 68)
  with pytest.raises(InputError, match="names no 68 landmarks"):
    ict._landmarks(pathlib.Path("x"), mean, UNIT, None, head)


@pytest.mark.parametrize(
  ("name", "text", "words"),
  [
    ("jawOpen.obj", None, "has no jawOpen.obj"),
    ("jawOpen.obj", "v 1 2 3\n", "has 1 vertices and generic_neutral"),
    ("jawOpen.obj", "v 1 2 x\n", "is no OBJ file"),
    ("generic_neutral_mesh.obj", None, "FaceXModel of ICT-FaceKit is wanted"),
    ("generic_neutral_mesh.obj", "v 1 2 3\nf 1 2 3\n", "no OBJ file of a mesh"),
    ("vertex_indices.json", "{", "not readable JSON"),
  ],
)
def test_another_folder_is_told_in_a_sentence(folder, name, text, words):
  path = folder / name
  kept = path.read_text()
  try:
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=words):
      ict.read(folder, morphable.load())
  finally:
    path.write_text(kept)
