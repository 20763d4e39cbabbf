"""Published face models -> ours: frame, unit, landmarks and the jaw.

A reader of one kind (`bfm`, `ict`, `flame`) gives a `Raw` model as it was
published, in its own unit; `finish` makes it one that everything here fits.
None of the published files was at hand: their layout is taken from the code
that reads them, and the tests write files of that layout.

v vertices, f triangles, i identity modes, e expression units.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pir_jax.face import morphable
from pir_jax.pretrained.heads import landmarks, nearest
from pir_jax.types import InputError


class Raw(NamedTuple):
  """A model as published.

  Attributes:
    name: of the kind.
    mean: neutral vertices; x to the subject's left, y up, z out of the face.
    identity: offsets for a standard deviation of each mode.
    expression: offsets of each unit.
    triangles: vertex indices.
    names: of the units.
    bounded: units are blendshapes in [0, 1], not principal components.
    unit: its length in head units.
    marked: points known to be landmarks, in its unit.
    origin: what is added to `mean` in head units; None brings the landmarks
      to where they are on the open head.
    skull: the back of the head is in it.
  """

  name: str
  mean: Float[np.ndarray, "v 3"]
  identity: Float[np.ndarray, "i v 3"]
  expression: Float[np.ndarray, "e v 3"]
  triangles: Int[np.ndarray, "f 3"]
  names: tuple[str, ...]
  bounded: bool
  unit: float
  marked: landmarks.Marked | None = None
  origin: tuple[float, float, float] | None = None
  skull: bool = True


class Imported(NamedTuple):
  """A model and how well it went.

  Attributes:
    model: ready to be saved.
    distance: RMS distance between the open head, laid over it, and its mesh,
      in millimetres.
  """

  model: morphable.FaceModel
  distance: float


def finish(raw: Raw, head: morphable.FaceModel) -> Imported:
  """Brings a model into our frame and unit, with landmarks and jaw.

  Args:
    raw: as published.
    head: the open head.

  Raises:
    InputError: it is no face, or not in the frame and unit that were published.
  """
  mean, identity, expression = (
    raw.unit * np.asarray(array, np.float64)
    for array in (raw.mean, raw.identity, raw.expression)
  )
  marked = raw.marked
  if marked is not None:
    marked = marked._replace(points=raw.unit * marked.points)
  triangles = _outwards(mean, raw.triangles)
  laid = landmarks.lay_over(mean, triangles, head, marked)
  embedding = landmarks.embed(laid, head)
  for _ in range(2):  # The jaw separates the lips, and these the jaw.
    jaw = landmarks.jaw_of(
      landmarks.at(embedding, expression), raw.names, embedding.valid, head
    )
    lowered = landmarks.lowered_by(jaw, expression, embedding)
    embedding = landmarks.embed(laid, head, lowered)
  if embedding.valid.sum() < 0.7 * len(embedding.valid):
    raise InputError(
      f"only {embedding.valid.sum()} of {len(embedding.valid)} landmarks have "
      "a place on the mesh"
    )
  points = landmarks.at(embedding, mean)
  shift = np.asarray(raw.origin or head.landmark_mean.mean(0) - points.mean(0))
  mean, points = mean + shift, points + shift
  if not raw.skull:
    mean, identity, expression = _with_skull(
      mean, identity, expression, points, head
    )
  arrays = {
    "mean": mean,
    "identity_basis": identity,
    "expression_basis": expression,
    "landmark_mean": points,
    "landmark_identity": landmarks.at(embedding, identity),
    "landmark_expression": landmarks.at(embedding, expression),
    "jaw": jaw,
  }
  model = morphable.FaceModel(
    **{name: array.astype(np.float32) for name, array in arrays.items()},
    triangles=triangles.astype(np.int32),
    landmark_triangles=embedding.triangles,
    landmark_weights=embedding.weights,
    landmark_valid=embedding.valid,
    name=raw.name,
    expression_names=raw.names,
    bounded=raw.bounded,
  )
  millimetres = 100 / morphable.HEAD_UNITS_PER_DECIMETRE
  return Imported(model, millimetres * embedding.distance)


def principal_names(count: int) -> tuple[str, ...]:
  """Returns names for units that have none."""
  return tuple(f"expression{k:03d}" for k in range(count))


def _outwards(
  mean: Float[np.ndarray, "v 3"], triangles: Int[np.ndarray, "f 3"]
) -> Int[np.ndarray, "f 3"]:
  """Orients triangles counter-clockwise, seen from outside."""
  middle = mean[triangles].mean(1)[:, 2]
  front = triangles[middle > np.percentile(middle, 75)]
  looks = nearest.triangle_normals(mean, front)[:, 2].sum()
  return triangles if looks > 0 else triangles[:, ::-1]


def _with_skull(mean, identity, expression, points, head):
  """Adds the open head's skull as loose vertices that nothing moves.

  A mask of the head must hold the hair, of which a face alone knows nothing.
  """
  ours = np.asarray(head.landmark_mean, np.float64)
  centre = ours.mean(0)
  scale = np.linalg.norm(points - points.mean(0)) / np.linalg.norm(
    ours - centre
  )
  chin, ear = ours[152, 1], ours[234, 2]
  skull = np.asarray(head.mean, np.float64)
  skull = skull[(skull[:, 1] > chin) & (skull[:, 2] < ear)]
  skull = scale * (skull - centre) + points.mean(0)
  added = ((0, 0), (0, len(skull)), (0, 0))
  return (
    np.concatenate([mean, skull]),
    np.pad(identity, added),
    np.pad(expression, added),
  )
