"""The open head: MakeHuman's base mesh cropped to the head, CC0.

It has eyes, teeth and tongue. Its identity modes are principal components of
artist-made shapes, not of scans: the prior is ours. Its expression units carry
ARKit's names. Frame and unit are those of `morphable`.

v vertices, f triangles, i identity modes, e expression units, l landmarks.
"""

import gzip
import hashlib
import os
import pathlib
import tempfile

import numpy as np

from pir_jax import assets

NAME = "open head"
NUM_IDENTITY = 80
HEAD_UNITS_PER_DECIMETRE = 0.27  # EG3D's scale of Deng et al.'s decimetres.
# ARKit's names of the expression units, in the order of the coefficients.
EXPRESSION_NAMES = tuple(
  """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight
  cheekPuff cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight
  eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight eyeLookOutLeft
  eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight
  eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose
  mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel
  mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft
  mouthPressRight mouthPucker mouthRight mouthRollLower mouthRollUpper
  mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
  mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight
  noseSneerLeft noseSneerRight tongueOut""".split()
)

_EMBEDDING = pathlib.Path(__file__).with_name("landmark_embedding.npz")
# A person is a sum of shapes with independent weights of this standard
# deviation. Ours: the artists' sliders run from 0 to 1.
_SHAPE_SIGMA = 0.35
_NECK = 5.7  # dm, in the base mesh: the crop leaves the shoulders out.
_REGIONS = (
  "head nose mouth eyes chin cheek forehead ears eyebrows asym neck".split()
)
_INSIDE = (
  "helper-l-eye",
  "helper-r-eye",
  "helper-upper-teeth",
  "helper-lower-teeth",
  "helper-tongue",
)
_CACHE_VERSION = 3  # Raise it when what `_build` computes changes.


def digest() -> str:
  """Returns a sha256 of the sources and the version of the arrays."""
  _, asset = assets.find("head_model")
  return hashlib.sha256(
    f"{_CACHE_VERSION} {asset.sha256} {assets.digest(_EMBEDDING)}".encode()
  ).hexdigest()


def load() -> dict[str, np.ndarray]:
  """Loads the arrays of a FaceModel: built once, then read from the cache."""
  path = assets.cache_directory() / f"face_model-{digest()[:12]}.npz"
  if not path.exists():
    arrays = _build(assets.fetch("head_model"))
    with tempfile.NamedTemporaryFile(
      dir=path.parent, suffix=".npz", delete=False
    ) as file:
      np.savez(file, **arrays)
    os.replace(file.name, path)
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _build(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Computes the model from MakeHuman's mesh and targets."""
  base, groups = _read_obj(folder / "mpfb2/3dobjs/base.obj")
  kept, triangles = _crop(base, groups)
  with np.load(_EMBEDDING, allow_pickle=False) as embedding:
    embedded = np.searchsorted(kept, embedding["tri"]).astype(np.int32)
    weights, valid = embedding["bary"], embedding["valid"]
  targets = folder / "mpfb2/targets"

  def read(path: pathlib.Path) -> np.ndarray:
    return _read_target(path, len(base))[kept]

  macro = targets / "macrodetails"
  peoples = np.stack([read(p) for p in sorted(macro.glob("*-young.target.gz"))])
  mean = base[kept] + peoples.mean(0)
  chin = mean[embedded[152], 1].min()
  head = mean[mean[:, 1] >= chin]
  mean -= (head.min(0) + head.max(0)) / 2 * [0, 1, 1]

  shapes = np.stack(
    [
      read(path)
      for region in _REGIONS
      for path in sorted((targets / region).glob("*.target.gz"))
    ]
    + list(peoples - peoples.mean(0))
  )
  face = np.unique(embedded)
  shapes = _without_similarity(mean, face, shapes)
  identity = _modes(shapes * _SHAPE_SIGMA, NUM_IDENTITY)
  units = folder / "faceunits01/targets/faceunits"
  expression = np.stack(
    [read(units / f"{name}.target") for name in EXPRESSION_NAMES]
  )

  def scaled(array: np.ndarray) -> np.ndarray:
    return (array * HEAD_UNITS_PER_DECIMETRE).astype(np.float32)

  def embed(array: np.ndarray) -> np.ndarray:
    return np.einsum("...lkc,lk->...lc", array[..., embedded, :], weights)

  parts = {
    "mean": scaled(mean),
    "identity": scaled(identity),
    "expression": scaled(expression),
  }
  points = {k: embed(part).astype(np.float32) for k, part in parts.items()}
  return {
    "mean": parts["mean"],
    "identity_basis": parts["identity"],
    "expression_basis": parts["expression"],
    "triangles": triangles,
    "landmark_triangles": embedded,
    "landmark_weights": weights,
    **{f"landmark_{name}": array for name, array in points.items()},
    "landmark_valid": valid,
  }


def _read_obj(
  path: pathlib.Path,
) -> tuple[np.ndarray, dict[str, list[list[int]]]]:
  """Reads vertices in decimetres and, by group, polygons of indices."""
  points, groups, group = [], {}, ""
  for line in path.read_text().splitlines():
    kind, _, rest = line.partition(" ")
    if kind == "v":
      points.append([float(x) for x in rest.split()])
    elif kind == "g":
      group = rest.strip()
    elif kind == "f":
      corners = [int(c.split("/")[0]) - 1 for c in rest.split()]
      groups.setdefault(group, []).append(corners)
  return np.array(points), groups


def _read_target(path: pathlib.Path, num_vertices: int) -> np.ndarray:
  """Reads a MakeHuman target: lines of vertex dx dy dz, in decimetres."""
  data = path.read_bytes()
  text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
  rows = [r.split() for r in text.splitlines() if r.strip()]
  offsets = np.zeros((num_vertices, 3))
  table = np.array(rows, np.float64).reshape(-1, 4)
  offsets[table[:, 0].astype(int)] = table[:, 1:4]
  return offsets


def _crop(
  base: np.ndarray, groups: dict[str, list[list[int]]]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns sorted vertex indices of the head, and its reindexed triangles."""

  def inside(polygon: list[int]) -> bool:
    corners = base[polygon]
    return bool((corners[:, 1] > _NECK).all())

  polygons = [p for p in groups["body"] if inside(p)]
  for name in _INSIDE:
    polygons += groups[name]
  triangles = np.array(
    [
      (polygon[0], polygon[k], polygon[k + 1])
      for polygon in polygons
      for k in range(1, len(polygon) - 1)
    ]
  )
  kept, reindexed = np.unique(triangles, return_inverse=True)
  return kept, reindexed.reshape(-1, 3).astype(np.int32)


def _without_similarity(
  mean: np.ndarray, face: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
  """Removes the face's rigid motion and scaling from each shape.

  Motion belongs to the pose. Size belongs to the distance: one image cannot
  distinguish a large head from a near one, so all faces have one size.
  """
  x, y, z = mean.T
  zero, one = np.zeros_like(x), np.ones_like(x)
  motions = np.stack(
    [
      np.stack([one, zero, zero], -1),
      np.stack([zero, one, zero], -1),
      np.stack([zero, zero, one], -1),
      np.stack([zero, -z, y], -1),
      np.stack([z, zero, -x], -1),
      np.stack([-y, x, zero], -1),
      mean,
    ]
  )
  on_face = motions[:, face].reshape(7, -1)
  weights, *_ = np.linalg.lstsq(
    on_face.T, shapes[:, face].reshape(len(shapes), -1).T, rcond=None
  )
  return shapes - np.einsum("ks,kvc->svc", weights, motions)


def _modes(shapes: np.ndarray, num_modes: int) -> np.ndarray:
  """Computes principal modes of a sum of shapes with unit variances."""
  flat = shapes.reshape(len(shapes), -1)
  values, vectors = np.linalg.eigh(flat @ flat.T)
  top = vectors[:, ::-1][:, :num_modes]
  # Signs of eigenvectors are arbitrary: the largest weight is made positive, so
  # that coefficients agree between machines.
  top = top * np.sign(top[np.abs(top).argmax(0), np.arange(num_modes)])
  return (top.T @ flat).reshape(num_modes, *shapes.shape[1:])
