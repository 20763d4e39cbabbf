"""ICT-FaceKit's light face model: a folder of OBJ files, FaceXModel.

One mesh for the neutral head (generic_neutral_mesh.obj), one for each of 100
identity modes (identity000.obj ...) and 53 expressions, all of one topology, in
centimetres; vertex_indices.json names the expressions and 68 landmarks. Layout:
README.md and Scripts/face_model_io.py of ICT-VGL/ICT-FaceKit (MIT).
"""

import json
import pathlib

import numpy as np

from pir_jax.face import morphable
from pir_jax.pretrained.heads import face_models, landmarks
from pir_jax.types import InputError

_NEUTRAL = "generic_neutral_mesh.obj"
_INDICES = "vertex_indices.json"
_WANTED = "the folder FaceXModel of ICT-FaceKit is wanted"
# ARKit's names; the kit writes Left and Right as _L and _R, halves browInnerUp
# and cheekPuff, and has no tongue.
_HALVED = ("browInnerUp", "cheekPuff")
_SIDEWAYS = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
# The README's Multi-PIE points, of the topology that it describes.
# fmt: off
_LANDMARKS = (
  1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924,
  2608, 3272, 4088, 3443, 268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734,
  2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537,
  1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0,
  4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207,
  6470, 5517, 5966)
# fmt: on
_NUM_VERTICES = 26719  # Of that topology; of them, the face, head and neck:
_NUM_SKIN = 11248


def read(folder: pathlib.Path, head: morphable.FaceModel) -> face_models.Raw:
  """Reads the folder as published.

  Args:
    folder: FaceXModel, or the kit that it is in.
    head: the open head, beside which the landmarks are checked.

  Raises:
    InputError: it is another folder, or a file is missing or of other topology.
  """
  if (folder / "FaceXModel").is_dir():
    folder = folder / "FaceXModel"
  if not (folder / _NEUTRAL).is_file():
    raise InputError(f"{folder} has no {_NEUTRAL}: {_WANTED}.")
  mean, triangles = read_obj(folder / _NEUTRAL)
  indices = _read_indices(folder / _INDICES)
  names = indices.get("expressions") or expression_names()
  modes = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
  units = [folder / f"{name}.obj" for name in names]
  missing = [path.name for path in units if not path.is_file()]
  if missing or not modes:
    missing += [] if modes else ["identity000.obj"]
    raise InputError(f"{folder} has no {', '.join(missing)}: {_WANTED}.")

  def offsets(paths):
    return np.stack([_points(path, len(mean)) - mean for path in paths])

  unit = morphable.HEAD_UNITS_PER_DECIMETRE / 10  # Centimetres.
  published = indices.get("idx_to_landmark_verts")
  places, marked = _landmarks(folder, mean, unit, published, head)
  identity, expression = offsets(modes), offsets(units)
  if places == _LANDMARKS and len(mean) == _NUM_VERTICES:
    # The README's regions: no teeth, sockets, eyes and lashes.
    mean, identity, expression = (
      array[..., :_NUM_SKIN, :] for array in (mean, identity, expression)
    )
    triangles = triangles[(triangles < _NUM_SKIN).all(1)]
  return face_models.Raw(
    name="ict",
    mean=mean,
    identity=identity,
    expression=expression,
    triangles=triangles,
    names=tuple(arkit_name(name) for name in names),
    bounded=True,
    unit=unit,
    marked=marked,
  )


def expression_names() -> tuple[str, ...]:
  """Returns the kit's 53 expressions, in its order."""
  names = []
  for name in morphable.EXPRESSION_NAMES:
    if name in _HALVED:
      names += [f"{name}_L", f"{name}_R"]
    elif name in _SIDEWAYS:
      names.append(name)
    elif name != "tongueOut":
      names.append(name.replace("Left", "_L").replace("Right", "_R"))
  return tuple(names)


def arkit_name(name: str) -> str:
  """Returns ARKit's name of an expression, or one like it."""
  if name.endswith(("_L", "_R")):
    return name[:-2] + {"L": "Left", "R": "Right"}[name[-1]]
  return name


def read_obj(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Reads vertices and triangles (polygons as fans) of an OBJ file.

  Raises:
    InputError: it is none.
  """
  points, triangles = [], []
  try:
    for line in path.read_text().splitlines():
      kind, _, rest = line.partition(" ")
      if kind == "v":
        points.append(rest.split()[:3])
      elif kind == "f":
        corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
        triangles += [
          (corners[0], *corners[k : k + 2]) for k in range(1, len(corners) - 1)
        ]
    vertices = np.array(points, np.float64).reshape(-1, 3)
    faces = np.array(triangles, np.int64).reshape(-1, 3)
  except ValueError as error:
    raise InputError(f"{path} is no OBJ file ({error}): {_WANTED}.") from error
  if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
    raise InputError(f"{path} is no OBJ file of a mesh: {_WANTED}.")
  return vertices, faces


def _points(path: pathlib.Path, count: int) -> np.ndarray:
  """Reads the vertices of a mesh of the neutral one's topology."""
  try:
    rows = [r[2:].split()[:3] for r in path.open() if r.startswith("v ")]
    points = np.array(rows, np.float64).reshape(-1, 3)
  except ValueError as error:
    raise InputError(f"{path} is no OBJ file ({error}): {_WANTED}.") from error
  if len(points) != count:
    raise InputError(
      f"{path} has {len(points)} vertices and {_NEUTRAL} {count}: files of two "
      "releases are mixed, fetch them anew."
    )
  return points


def _read_indices(path: pathlib.Path) -> dict:
  if not path.is_file():
    return {}
  try:
    indices = json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not readable JSON: fetch it anew.") from error
  return indices if isinstance(indices, dict) else {}


def _landmarks(folder, mean, unit, published, head):
  """Returns the 68 points of the JSON or of the README, whichever fit."""
  # Releases number their vertices differently, and not all files followed.
  options = []
  for places in (published, _LANDMARKS):
    if places and len(places) == 68 and max(places) < len(mean):
      marked = landmarks.marked_68(mean[list(places)])
      scaled = marked._replace(points=unit * marked.points)
      options.append((landmarks.misfit(scaled, head), tuple(places), marked))
  if not options:
    raise InputError(f"{folder / _INDICES} names no 68 landmarks: {_WANTED}.")
  _, places, marked = min(options, key=lambda row: row[0])
  return places, marked
