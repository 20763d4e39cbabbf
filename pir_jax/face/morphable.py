"""A parametric head, linear in identity and expression.

The open head (`open_head`) is the default; `python -m pir_jax.convert
face_model` converts other models from the user's files. All share one frame.

The head frame: x to the viewer's right (the subject's left), y up, z towards
the viewer, origin at the middle of the neutral head, unit 1 / 2.7 m. So the
head with its hair fits the box [-0.5, 0.5]^3, and a camera one metre away is
2.7 units away, as in EG3D.

v vertices, f triangles, i identity modes, e expression units, l landmarks.
"""

import os
import pathlib
import shutil
import tempfile
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pir_jax import assets
from pir_jax.face import open_head
from pir_jax.types import AnyArray, InputError

NUM_LANDMARKS = 468  # MediaPipe's face mesh.
# Of the open head; other models have their own sizes and names.
NUM_IDENTITY = open_head.NUM_IDENTITY
EXPRESSION_NAMES = open_head.EXPRESSION_NAMES
NUM_EXPRESSION = len(EXPRESSION_NAMES)
HEAD_UNITS_PER_DECIMETRE = open_head.HEAD_UNITS_PER_DECIMETRE
_FORMAT = 1  # Of the files that `save` writes.
# Landmarks on the lips: the outer line, then the inner one.
# fmt: off
LIPS = np.array([
  61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84,
  181, 91, 146, 78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402,
  317, 14, 87, 178, 88, 95])
# Bone close under the skin: forehead, bridge and tip of the nose, corners of
# the eyes, temples. Speech moves none of them.
RIGID = np.array([
  10, 338, 297, 332, 284, 251, 389, 356, 127, 162, 21, 54, 103, 67, 109,
  151, 9, 8, 108, 337, 69, 299, 104, 333, 168, 6, 197, 195, 5, 4, 1, 19, 94, 2,
  98, 327, 45, 275, 51, 281, 3, 248, 122, 351, 193, 417,
  33, 133, 362, 263, 130, 359])
# fmt: on


class FaceModel(NamedTuple):
  """A linear head: mean + identity modes + expression units.

  Attributes:
    mean: neutral vertices, head units.
    identity_basis: offsets for one standard deviation of each mode.
    expression_basis: offsets of each unit at strength 1.
    triangles: vertex indices, counter-clockwise seen from outside.
    landmark_triangles: the three vertices around a landmark.
    landmark_weights: their barycentric weights, summing to one.
    landmark_mean: landmarks of the neutral mean head.
    landmark_identity: the identity basis at the landmarks.
    landmark_expression: the expression basis at the landmarks.
    landmark_valid: whether a landmark lies on the mesh.
    name: for display, such as "open head" or "bfm".
    expression_names: one a unit, ARKit's where they apply.
    bounded: units are blendshapes with strengths in [0, 1]; else they are
      principal components, in standard deviations around 0.
    jaw: coefficients that lower the jaw as the open head's jawOpen does at 1.
    sha256: of the file that the model was read from.
  """

  mean: Float[AnyArray, "v 3"]
  identity_basis: Float[AnyArray, "i v 3"]
  expression_basis: Float[AnyArray, "e v 3"]
  triangles: Int[AnyArray, "f 3"]
  landmark_triangles: Int[AnyArray, "l 3"]
  landmark_weights: Float[AnyArray, "l 3"]
  landmark_mean: Float[AnyArray, "l 3"]
  landmark_identity: Float[AnyArray, "i l 3"]
  landmark_expression: Float[AnyArray, "e l 3"]
  landmark_valid: Bool[AnyArray, "l"]
  name: str
  expression_names: tuple[str, ...]
  bounded: bool
  jaw: Float[AnyArray, "e"]
  sha256: str = ""


def vertices(
  model: FaceModel,
  identity: Float[AnyArray, "*b i"],
  expression: Float[AnyArray, "*b e"],
) -> Float[Array, "*b v 3"]:
  """Computes vertices in head units: mean + identity + expression."""
  return _blend(
    model.mean,
    model.identity_basis,
    model.expression_basis,
    identity,
    expression,
  )


def landmarks(
  model: FaceModel,
  identity: Float[AnyArray, "*b i"],
  expression: Float[AnyArray, "*b e"],
) -> Float[Array, "*b l 3"]:
  """Computes the landmarks of `vertices` without the vertices."""
  return _blend(
    model.landmark_mean,
    model.landmark_identity,
    model.landmark_expression,
    identity,
    expression,
  )


def _blend(mean, identity_basis, expression_basis, identity, expression):
  return (
    jnp.asarray(mean)
    + jnp.tensordot(identity, identity_basis, axes=1)
    + jnp.tensordot(expression, expression_basis, axes=1)
  )


def jaw_open(model: FaceModel) -> Float[np.ndarray, "e"]:
  """Returns coefficients that equal the open head's jawOpen at 1."""
  return np.asarray(model.jaw, np.float32)


def load(path: str | pathlib.Path | None = None) -> FaceModel:
  """Loads a head model; None is the open head.

  A copy of a user's model is kept in the cache, for `recorded` to load with
  the clips that were prepared with it.

  Raises:
    InputError: there is no such file, or it is not a face model.
  """
  if path is None:
    jaw = np.array([n == "jawOpen" for n in EXPRESSION_NAMES], np.float32)
    return FaceModel(
      **open_head.load(),
      name=open_head.NAME,
      expression_names=EXPRESSION_NAMES,
      bounded=True,
      jaw=jaw,
      sha256=open_head.digest(),
    )
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(
      f"there is no face model {path}: make one with `python -m "
      "pir_jax.convert face_model`."
    )
  model = _read(path)
  kept = _kept(model.sha256)
  if not kept.exists():
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
      with path.open("rb") as source:
        shutil.copyfileobj(source, file)
    os.replace(file.name, kept)
  return model


def recorded(sha256: str, name: str = "") -> FaceModel:
  """Loads the model that a clip was prepared with; "" is the open head.

  Raises:
    InputError: it was never loaded on this machine.
  """
  if sha256 in ("", open_head.digest()):
    return load()
  if not _kept(sha256).is_file():
    raise InputError(
      f"the face model {name or 'used'} (sha256 {sha256[:12]}...) is not on "
      "this machine: copy the .npz that --face_model named to "
      f"{_kept(sha256)}."
    )
  return load(_kept(sha256))


def save(model: FaceModel, path: str | pathlib.Path) -> FaceModel:
  """Writes an .npz without pickles; returns the model as `load` reads it.

  Raises:
    ValueError: its arrays are inconsistent.
  """
  _check(model)
  path = pathlib.Path(path)
  fields = model._asdict()
  del fields["sha256"]
  with tempfile.NamedTemporaryFile(
    dir=path.parent, suffix=".npz", delete=False
  ) as file:
    np.savez(file, format=_FORMAT, **fields)
  os.chmod(file.name, 0o644)
  os.replace(file.name, path)
  return load(path)


def _kept(sha256: str) -> pathlib.Path:
  return assets.cache_directory() / "face_models" / f"{sha256}.npz"


def _read(path: pathlib.Path) -> FaceModel:
  """Reads and checks a file of `save`."""
  try:
    with np.load(path, allow_pickle=False) as file:
      fields = dict(file)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(
      f"{path} is not a face model of this project: make one with `python -m"
      " pir_jax.convert face_model`."
    ) from error
  if fields.pop("format", None) != _FORMAT:
    raise InputError(
      f"{path} is not a face model of this release: convert it with `python -m "
      "pir_jax.convert face_model`."
    )
  wrong = sorted({*fields, "sha256"} ^ set(FaceModel._fields))
  if wrong:
    raise InputError(
      f"{path} has missing or unknown arrays {', '.join(wrong)}: convert it "
      "again with `python -m pir_jax.convert face_model`."
    )
  fields |= {
    "name": str(fields["name"]),
    "expression_names": tuple(map(str, fields["expression_names"])),
    "bounded": bool(fields["bounded"]),
  }
  try:
    model = FaceModel(**fields, sha256=assets.digest(path))
    _check(model)
  except ValueError as error:
    raise InputError(f"{path}: {error}.") from error
  return model


def _check(model: FaceModel) -> None:
  """Raises ValueError where arrays are inconsistent."""
  sizes = {
    "v": len(model.mean),
    "i": len(model.identity_basis),
    "e": len(model.expression_basis),
    "l": NUM_LANDMARKS,
    "f": len(model.triangles),
    "3": 3,
  }
  shapes = {
    "mean": "v3",
    "identity_basis": "iv3",
    "expression_basis": "ev3",
    "triangles": "f3",
    "landmark_triangles": "l3",
    "landmark_weights": "l3",
    "landmark_mean": "l3",
    "landmark_identity": "il3",
    "landmark_expression": "el3",
    "landmark_valid": "l",
    "jaw": "e",
  }
  for field, letters in shapes.items():
    array = np.asarray(getattr(model, field))
    expected = tuple(sizes[letter] for letter in letters)
    if array.shape != expected:
      raise ValueError(f"{field} has shape {array.shape}, not {expected}")
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
      raise ValueError(f"{field} has values that are not finite")
    if field.endswith("triangles") and not (
      array.dtype.kind in "iu" and 0 <= array.min() <= array.max() < sizes["v"]
    ):
      raise ValueError(f"{field} has indices of missing vertices")
  if np.abs(np.asarray(model.landmark_weights).sum(1) - 1).max() > 1e-3:
    raise ValueError("landmark_weights do not sum to one")
  names = model.expression_names
  if len(set(names)) != len(names) or len(names) != sizes["e"]:
    raise ValueError(
      f"{len(set(names))} different names for {sizes['e']} expression units"
    )
