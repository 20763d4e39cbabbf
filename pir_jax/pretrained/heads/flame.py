"""FLAME, generic_model.pkl or the same arrays as an .npz.

300 identity and 100 expression components, both times their standard
deviations, in metres, and a jaw that turns about a joint (Li et al. 2017). Our
models are linear, so one more unit, jawOpen, is the way from the closed mouth
to a jaw turned by `JAW_ANGLE`, corrections of the skin included; the other
joints keep still. The pickle holds chumpy's objects: they are read as inert
records, no code of theirs runs.
"""

import pathlib
import zipfile

import numpy as np

from pir_jax.face import morphable
from pir_jax.pretrained import records, unpickler
from pir_jax.pretrained.heads import face_models, landmarks
from pir_jax.types import InputError

NUM_IDENTITY = 300
NUM_EXPRESSION = 100
JAW_ANGLE = 0.2  # Radians: about the std of a jaw during speech.
_JAW = 2  # Joints: whole, neck, jaw, left and right eye.
_WANTED = "FLAME's generic_model.pkl is wanted"
_SHAPES = {
  "v_template": "v3",
  "shapedirs": "v3s",
  "posedirs": "v3p",
  "J_regressor": "jv",
  "weights": "vj",
  "f": "f3",
}
_SIZES = {"3": 3, "s": NUM_IDENTITY + NUM_EXPRESSION, "j": 5, "p": 36}


class _Ch(records.Record):
  """chumpy's array: its elements are in `x`."""

  __slots__ = ()


class _Select(records.Record):
  """chumpy's view of another array: `a`, flat, at `idxs`."""

  __slots__ = ()


class _Sparse(records.Record):
  """scipy's matrix of compressed columns."""

  __slots__ = ()


def _reconstructor(cls, *unused_rest):
  if cls not in (_Ch, _Select, _Sparse):
    raise records.Damage("an object of an unknown class")
  return cls()


_NAMES = {
  ("chumpy.ch", "Ch"): _Ch,
  ("chumpy", "Ch"): _Ch,
  ("chumpy.reordering", "Select"): _Select,
  ("scipy.sparse.csc", "csc_matrix"): _Sparse,
  ("scipy.sparse._csc", "csc_matrix"): _Sparse,
  ("copy_reg", "_reconstructor"): records.Call(_reconstructor),
  ("copyreg", "_reconstructor"): records.Call(_reconstructor),
}


def read(
  path: pathlib.Path, landmarks: pathlib.Path | None = None
) -> face_models.Raw:
  """Reads the file as published.

  Args:
    path: of the model.
    landmarks: FLAME's own mediapipe_landmark_embedding.npz, if there is one.

  Raises:
    InputError: it is another file.
  """
  arrays = _checked(path, _load(path))
  directions = np.moveaxis(arrays["shapedirs"], -1, 0)
  jaw = _jaw_unit(arrays)
  triangles = arrays["f"].astype(np.int64)
  mean = arrays["v_template"]
  return face_models.Raw(
    name="flame",
    mean=mean,
    identity=directions[:NUM_IDENTITY],
    expression=np.concatenate([directions[NUM_IDENTITY:], jaw[None]]),
    triangles=triangles,
    names=(*face_models.principal_names(NUM_EXPRESSION), "jawOpen"),
    bounded=False,
    unit=10 * morphable.HEAD_UNITS_PER_DECIMETRE,
    marked=landmarks and _marked(landmarks, mean, triangles),
  )


def _load(path: pathlib.Path) -> dict:
  """Reads all arrays of the file by name."""
  with path.open("rb") as file:
    start = file.read(4)
  if start == b"PK\3\4":
    try:
      with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in _SHAPES if k in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
      raise InputError(
        f"{path} is no .npz of plain arrays ({error}): {_WANTED}."
      ) from error
  contents = unpickler.load(path, names=_NAMES, what="FLAME models")
  if not isinstance(contents, dict):
    raise InputError(f"{path} holds no dict of arrays: {_WANTED}.")
  try:
    return {k: _plain(contents[k]) for k in _SHAPES if k in contents}
  except (records.Damage, ValueError, IndexError, TypeError) as error:
    raise InputError(f"{path} is damaged ({error}): fetch it anew.") from error


def _plain(value) -> np.ndarray:
  """Returns the elements of an array, whatever record they are in."""
  if isinstance(value, records.Array):
    return value.array()
  if isinstance(value, _Ch):
    return _plain(value.state.get("x"))
  if isinstance(value, _Select):
    shape = value.state.get("preferred_shape")
    picked = _plain(value.state.get("a")).ravel()
    picked = picked[_plain(value.state.get("idxs"))]
    return picked if shape is None else picked.reshape(shape)
  if isinstance(value, _Sparse):
    return _dense(value.state)
  raise records.Damage("an array of an unknown kind")


def _dense(state: dict) -> np.ndarray:
  shape = state.get("_shape", state.get("shape"))
  if not (
    isinstance(shape, tuple)
    and len(shape) == 2
    and all(map(records.is_count, shape))
  ):
    raise records.Damage("a sparse matrix without a shape")
  if shape[0] * shape[1] > 10**8:
    raise records.Damage("a sparse matrix of no proper size")
  starts, rows, values = (
    _plain(state.get(key)) for key in ("indptr", "indices", "data")
  )
  dense = np.zeros(shape)
  columns = np.repeat(np.arange(shape[1]), np.diff(starts))
  dense[rows, columns] = values
  return dense


def _checked(path: pathlib.Path, arrays: dict) -> dict[str, np.ndarray]:
  """Checks the sizes and returns the arrays in float64."""
  missing = [key for key in _SHAPES if key not in arrays]
  if missing:
    raise InputError(f"{path} has no {', '.join(missing)}: {_WANTED}.")
  sizes = dict(_SIZES)
  for key, letters in _SHAPES.items():
    shape = arrays[key].shape
    wrong = len(shape) != len(letters) or any(
      sizes.setdefault(letter, size) != size
      for letter, size in zip(letters, shape, strict=True)
    )
    if wrong:
      raise InputError(f"{path}: {key} has shape {shape}: {_WANTED}.")
  arrays = {key: array.astype(np.float64) for key, array in arrays.items()}
  if not 0 <= arrays["f"].min() <= arrays["f"].max() < sizes["v"]:
    raise InputError(f"{path}: f names vertices that do not exist: {_WANTED}.")
  return arrays


def _jaw_unit(arrays: dict[str, np.ndarray]) -> np.ndarray:
  """Returns the vertex offsets of a jaw turned by JAW_ANGLE about x."""
  mean = arrays["v_template"]
  joint = (arrays["J_regressor"] @ mean)[_JAW]
  cosine, sine = np.cos(JAW_ANGLE), np.sin(JAW_ANGLE)
  turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
  # The skin's corrections are linear in the turns of all joints but the first.
  turned = np.zeros((4, 3, 3))
  turned[_JAW - 1] = turn - np.eye(3)
  posed = mean + arrays["posedirs"] @ turned.ravel()
  share = arrays["weights"][:, _JAW, None]
  return posed - mean + share * ((posed - joint) @ (turn - np.eye(3)).T)


def _marked(path, mean, triangles) -> landmarks.Marked:
  """Reads FLAME's 105 of MediaPipe's landmarks, as points of its triangles."""
  try:
    with np.load(path, allow_pickle=False) as file:
      faces = file["lmk_face_idx"].astype(np.int64)
      weights = np.asarray(file["lmk_b_coords"], np.float64)
      indices = file["landmark_indices"].astype(np.int64)
    points = np.einsum("kcx,kc->kx", mean[triangles[faces]], weights)
    chosen = indices < morphable.NUM_LANDMARKS  # No irises.
  except (
    ValueError,
    KeyError,
    IndexError,
    OSError,
    zipfile.BadZipFile,
  ) as error:
    raise InputError(
      f"{path} is not FLAME's mediapipe_landmark_embedding.npz: fetch it anew."
    ) from error
  return landmarks.marked_exactly(indices[chosen], points[chosen])
