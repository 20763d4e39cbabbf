"""The Basel Face Model 2009 in Deep3DFaceRecon's layout, BFM_model_front.mat.

80 identity modes, 64 expression components (Guo et al.'s) and a mean of the
face's front, in decimetres, the bases times their standard deviations: as
sicxu/Deep3DFaceRecon_pytorch makes it (util/load_mats.py) and reads it
(models/bfm.py). The mean is brought to zero there and to the middle of the head
by EG3D (https://github.com/NVlabs/eg3d, dataset_preprocessing).
"""

import pathlib
import zlib

import numpy as np
from scipy import io

from pir_jax.face import morphable
from pir_jax.pretrained.heads import face_models, landmarks
from pir_jax.types import InputError

NUM_IDENTITY = 80
NUM_EXPRESSION = 64
# Head units, from the mean of the vertices: what EG3D adds.
_ORIGIN = (0.0, 0.006, 0.161)
_WANTED = (
  "Deep3DFaceRecon's BFM_model_front.mat is wanted (its util/load_mats.py "
  "makes it from BFM 2009 and the expression basis)"
)
# What a file of another kind makes scipy raise.
_BREAKAGE = (
  ValueError,
  TypeError,
  KeyError,
  IndexError,
  EOFError,
  OSError,
  OverflowError,
  MemoryError,
  NotImplementedError,
  zlib.error,
  io.matlab.MatReadError,
)
_KEYS = ("meanshape", "idBase", "exBase", "tri", "keypoints")


def read(path: pathlib.Path) -> face_models.Raw:
  """Reads the file as published.

  Raises:
    InputError: it is another file.
  """
  arrays = _load(path)
  missing = [key for key in _KEYS if key not in arrays]
  if missing and "shapePC" in arrays:
    raise InputError(
      f"{path} is the original BFM 2009, which has no expressions: {_WANTED}."
    )
  if missing:
    raise InputError(f"{path} has no {', '.join(missing)}: {_WANTED}.")
  mean = np.asarray(arrays["meanshape"], np.float64).reshape(-1, 3)
  expected = {
    "idBase": (mean.size, NUM_IDENTITY),
    "exBase": (mean.size, NUM_EXPRESSION),
  }
  for key, shape in expected.items():
    if arrays[key].shape != shape:
      raise InputError(
        f"{path}: {key} has shape {arrays[key].shape}, not {shape}: {_WANTED}."
      )
  triangles = _indices(path, arrays, "tri", len(mean)).reshape(-1, 3)
  keypoints = _indices(path, arrays, "keypoints", len(mean)).ravel()
  if len(keypoints) != 68:
    raise InputError(f"{path} has {len(keypoints)} keypoints, not 68.")
  mean = mean - mean.mean(0)

  def basis(key):
    return np.asarray(arrays[key], np.float64).T.reshape(-1, len(mean), 3)

  return face_models.Raw(
    name="bfm",
    mean=mean,
    identity=basis("idBase"),
    expression=basis("exBase"),
    triangles=triangles,
    names=face_models.principal_names(NUM_EXPRESSION),
    bounded=False,
    unit=morphable.HEAD_UNITS_PER_DECIMETRE,
    marked=landmarks.marked_68(mean[keypoints]),
    origin=_ORIGIN,
    skull=False,
  )


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
  with path.open("rb") as file:
    start = file.read(600)
  if b"\x89HDF" in start or start.startswith(b"MATLAB 7.3"):
    raise InputError(
      f"{path} is an HDF5 file, as BFM 2017 and 2019 are: these are other "
      f"models, and {_WANTED}."
    )
  try:
    # Of other kinds of values (functions, objects) nothing is looked at.
    contents = io.loadmat(path, variable_names=[*_KEYS, "shapePC"])
  except _BREAKAGE as error:
    raise InputError(
      f"{path} is no MATLAB file ({type(error).__name__}): {_WANTED}."
    ) from error
  return {k: v for k, v in contents.items() if isinstance(v, np.ndarray)}


def _indices(path, arrays, key: str, count: int) -> np.ndarray:
  """Returns vertex indices, which count from 1 in the file and from 0 here."""
  indices = np.asarray(arrays[key]).astype(np.int64) - 1
  if not indices.size or indices.min() < 0 or indices.max() >= count:
    raise InputError(
      f"{path}: {key} names vertices that do not exist: {_WANTED}."
    )
  return indices
