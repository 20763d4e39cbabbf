"""Where MediaPipe's 468 landmarks lie on a foreign head's mesh.

The open head is laid over the mesh: first by a similarity, then by its identity
modes, last by a smooth warp, each time towards the nearest points whose normals
look the same way. Points that the publisher marked, if any, pull it along the
skin. Its landmarks then drop onto the mesh.

v vertices, f triangles, l landmarks, k marked points, n points, c candidates.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import interpolate, spatial

from pir_jax.face import morphable
from pir_jax.pretrained.heads import nearest
from pir_jax.types import InputError

# The inner 51 of the 68 points of Multi-PIE, 18 to 68, as landmarks that lie
# there. The jaw's line is left out: it lies where each image shows the outline.
# fmt: off
INNER_51 = np.array([
  70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
  168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
  33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
  61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,  # lips, outside
  78, 82, 13, 312, 308, 317, 14, 87])  # lips, inside
# fmt: on
# A brow is hair, not skin.
_BROWS = np.arange(10)
_INNER_LIPS = morphable.LIPS[20:]
_LOWER_LIP = [14, 17, 87, 317]
_NOSE_TIP = 4
_NUM_STEPS = 25
_NUM_RIGID = 8  # Of them, the first, leave the mean head as it is.
_NOISE = 0.003  # Head units (1.1 mm): how well heads of two models agree.
_MARKED_NOISE = 0.008  # The same of a marked point, along the skin too.
_BROW_NOISE = 0.03
_FARTHEST = 0.02  # Of a landmark from the mesh, after the warp.
_WORST = 0.035  # RMS over marked points, after the similarity (13 mm).
_SHAPE_RIDGE = 5.0  # Of the identity modes, in these errors.
_SLIDING = 0.02  # Share of an error that counts along the skin.
_STIFFNESS = (0.3, 0.1, 0.03)  # Of the warp, softer and softer.
_JAW_SIGMA = 0.005  # Of a landmark's motion that a model's units explain.


class Marked(NamedTuple):
  """Points on a mesh that are known to be landmarks."""

  landmarks: Int[np.ndarray, "k"]
  points: Float[np.ndarray, "k 3"]
  noise: Float[np.ndarray, "k"]


class Embedding(NamedTuple):
  """Landmarks as points between three vertices each.

  Attributes:
    triangles: the three vertices.
    weights: theirs, summing to one.
    valid: the landmark has a place on the mesh.
    distance: RMS distance of the laid-over landmarks from it, head units.
  """

  triangles: Int[np.ndarray, "l 3"]
  weights: Float[np.ndarray, "l 3"]
  valid: Bool[np.ndarray, "l"]
  distance: float


def marked_68(points: Float[np.ndarray, "68 3"]) -> Marked:
  """Returns Multi-PIE's 68 points of a mesh without the jaw's line."""
  noise = np.full(len(INNER_51), _MARKED_NOISE)
  noise[_BROWS] = _BROW_NOISE
  return Marked(INNER_51, np.asarray(points[17:], np.float64), noise)


def marked_exactly(
  landmarks: Int[np.ndarray, "k"], points: Float[np.ndarray, "k 3"]
) -> Marked:
  """Returns points that are the landmarks themselves."""
  return Marked(landmarks, points, np.full(len(landmarks), _MARKED_NOISE / 4))


class Laid(NamedTuple):
  """The open head laid over a mesh: its landmarks, not yet on the mesh."""

  surface: nearest.Surface
  points: Float[np.ndarray, "l 3"]
  normals: Float[np.ndarray, "l 3"]
  marked: Marked | None


def lay_over(
  vertices: Float[np.ndarray, "v 3"],
  triangles: Int[np.ndarray, "f 3"],
  head: morphable.FaceModel,
  marked: Marked | None = None,
) -> Laid:
  """Lays the open head over another mesh.

  Args:
    vertices: neutral, upright, facing +z, in head units (the origin may be
      elsewhere).
    triangles: counter-clockwise seen from outside.
    head: the open head.
    marked: points of the mesh that are known to be landmarks.

  Raises:
    InputError: the mesh is no face in this frame and unit.
  """
  surface = nearest.Surface(
    np.asarray(vertices, np.float64), nearest.skin(triangles)
  )
  points, normals = _lay(surface, head, marked)
  return Laid(surface, _warp(surface, points, normals, marked), normals, marked)


def embed(
  laid: Laid,
  head: morphable.FaceModel,
  lowered: Float[np.ndarray, "v"] | None = None,
) -> Embedding:
  """Drops the landmarks onto the mesh.

  Args:
    laid: see `lay_over`.
    head: the open head.
    lowered: how far each vertex goes with the jaw, 1 at the lower lip:
      separates lips that touch.
  """
  surface, marked = laid.surface, laid.marked
  allowed = None if lowered is None else _sides(surface, head, lowered)
  nearby = surface.nearest(laid.points, laid.normals, allowed)
  if marked is not None:
    # The publisher's points lie on the mesh already.
    exact = surface.nearest(marked.points)
    certain = marked.noise < _MARKED_NOISE
    for whole, part in zip(nearby, exact, strict=True):
      whole[marked.landmarks[certain]] = part[certain]
  distance = np.linalg.norm(nearby.points - laid.points, axis=1)
  near = distance < _FARTHEST
  return Embedding(
    surface.triangles[nearby.faces].astype(np.int32),
    nearby.weights.astype(np.float32),
    near & np.asarray(head.landmark_valid),
    float(np.sqrt(np.mean(distance[near] ** 2))) if near.any() else np.inf,
  )


def at(
  embedding: Embedding, array: Float[np.ndarray, "*b v 3"]
) -> Float[np.ndarray, "*b l 3"]:
  """Interpolates vertices, or offsets of them, at the landmarks."""
  corners = array[..., embedding.triangles, :]
  return np.einsum("...lkc,lk->...lc", corners, embedding.weights)


def jaw_of(
  landmark_expression: Float[np.ndarray, "e l 3"],
  names: tuple[str, ...],
  valid: Bool[np.ndarray, "l"],
  head: morphable.FaceModel,
) -> Float[np.ndarray, "e"]:
  """Returns coefficients that lower the jaw like the open head's jawOpen of 1.

  A unit of that name is scaled; else the units move the lower face together,
  as far as their spread makes likely (a ridge).
  """
  wanted = np.tensordot(morphable.jaw_open(head), head.landmark_expression, 1)
  low = head.landmark_mean[:, 1] < head.landmark_mean[2, 1]  # Under the nose.
  low &= valid & ~np.isin(np.arange(len(valid)), _INNER_LIPS)
  units = landmark_expression[:, low].reshape(len(landmark_expression), -1)
  target = wanted[low].ravel()
  if "jawOpen" in names:
    one = names.index("jawOpen")
    strength = units[one] @ target / (units[one] @ units[one])
    return (strength * (np.arange(len(names)) == one)).astype(np.float32)
  ridge = _JAW_SIGMA**2 * np.eye(len(units))
  coefficients = np.linalg.solve(units @ units.T + ridge, units @ target)
  return coefficients.astype(np.float32)


def lowered_by(
  jaw: Float[np.ndarray, "e"],
  expression_basis: Float[np.ndarray, "e v 3"],
  embedding: Embedding,
) -> Float[np.ndarray, "v"]:
  """Returns how far vertices go down with the jaw; 1 at the lower lip.

  Raises:
    InputError: no expression lowers the lip.
  """
  down = -np.tensordot(jaw, expression_basis[..., 1], axes=1)
  lip = down[embedding.triangles[17]] @ embedding.weights[17]
  if lip <= 0:
    raise InputError("none of its expressions opens the mouth")
  return down / lip


def _sides(surface, head, lowered) -> Bool[np.ndarray, "l f"]:
  """Returns the triangles a landmark may lie on, by what moves with the jaw."""
  moves = -np.tensordot(
    morphable.jaw_open(head), head.landmark_expression[..., 1], axes=1
  )
  moves = moves / moves[_LOWER_LIP].mean()
  lips = np.isin(np.arange(len(moves)), morphable.LIPS)
  low = lowered[surface.triangles].mean(1) > 0.5
  allowed = np.ones((len(moves), len(low)), bool)
  allowed[lips & (moves > 0.7)] = low
  allowed[lips & (moves < 0.3)] = ~low
  return allowed if low.any() and not low.all() else np.ones_like(allowed)


def _lay(surface, head, marked):
  """Returns landmarks and normals of the head, laid over the mesh."""
  count = len(head.landmark_mean)
  mean, modes, normals = _points(head)
  scale, turn, shift = _start(surface, mean, marked)
  identity = np.zeros(len(modes))
  for step in range(_NUM_STEPS):
    local = (mean + np.tensordot(identity, modes, 1)) @ turn.T
    points, looks = scale * local + shift, normals @ turn.T
    free = len(modes) if step >= _NUM_RIGID else 0
    change = _columns(local, modes[:free] @ turn.T, scale)
    # Far points say little, and less and less, of the near ones.
    width = max(0.08 * 0.85**step, 3 * _NOISE)
    matrix, aim = _equations(surface, points, looks, change, width, marked)
    ridge = np.append(np.full(7, 1e-6), np.full(free, _SHAPE_RIDGE))
    known = np.append(np.zeros(7), identity[:free])
    solved = np.linalg.solve(
      matrix.T @ matrix + np.diag(ridge), matrix.T @ aim - ridge * known
    )
    turn = spatial.transform.Rotation.from_rotvec(solved[:3]).as_matrix() @ turn
    shift = shift + solved[3:6]
    scale = scale * np.exp(np.clip(solved[6], -0.1, 0.1))
    identity[:free] += solved[7:]
  points = scale * (mean + np.tensordot(identity, modes, 1)) @ turn.T + shift
  return points[:count], (normals @ turn.T)[:count]


def _equations(surface, points, looks, change, width, marked):
  """Returns the least-squares rows that bring points to the surface."""
  nearby = surface.nearest(points, looks)
  away = nearby.points - points
  far = np.linalg.norm(away, axis=1) / width
  weight = (
    ((nearby.normals * looks).sum(1) > nearest.FACING) / (1 + far**2) / _NOISE
  )
  # Where the mesh ends, so does what it says of the points beyond.
  beyond = surface.at_border[nearby.faces] & (
    np.arange(len(points)) >= morphable.NUM_LANDMARKS
  )
  weight = weight * ~beyond
  rows = [weight[:, None] * np.einsum("lxp,lx->lp", change, nearby.normals)]
  aims = [weight * (away * nearby.normals).sum(1)]
  # The nearest point is not the landmark: only a little is held along the skin.
  slight = _SLIDING * weight[:, None]
  rows.append((slight[..., None] * change).reshape(-1, change.shape[-1]))
  aims.append((slight * away).ravel())
  if marked is not None:
    gap = marked.points - points[marked.landmarks]
    far = np.linalg.norm(gap, axis=1) / 0.04
    sure = (1 / marked.noise / (1 + far**2))[:, None]
    part = sure[..., None] * change[marked.landmarks]
    rows.append(part.reshape(-1, change.shape[-1]))
    aims.append((sure * gap).ravel())
  return np.concatenate(rows), np.concatenate(aims)


def _columns(local, modes, scale) -> np.ndarray:
  """Returns the derivatives of points by turn, shift, scale and shape."""
  x, y, z = scale * local.T
  zero, one = np.zeros_like(x), np.ones_like(x)
  moves = [
    np.stack(move, -1)
    for move in (
      (zero, -z, y),
      (z, zero, -x),
      (-y, x, zero),
      (one, zero, zero),
      (zero, one, zero),
      (zero, zero, one),
      (x, y, z),
    )
  ]
  return np.stack([*moves, *(scale * modes)], -1)


def _start(surface, mean, marked):
  """Returns scale, turn and shift that lay the mean head over the mesh."""
  if marked is None:
    # Upright, as large as in life, and the nose is what sticks out.
    skin = surface.vertices[np.unique(surface.triangles)]
    return 1.0, np.eye(3), skin[skin[:, 2].argmax()] - mean[_NOSE_TIP]
  scale, turn, shift, gap = _similarity(mean[marked.landmarks], marked)
  if gap > _WORST or turn[2, 2] < 0.7:
    raise InputError(
      "its marked points do not lie like those of a face that looks along z"
    )
  if not 0.6 < scale < 1.6:
    raise InputError(
      f"its face is {scale:.3g} times as large as in life: its unit is not the "
      "published one"
    )
  return scale, turn, shift


def misfit(marked: Marked, head: morphable.FaceModel) -> float:
  """Returns the median distance of marked points from a face, in head units."""
  mean = np.asarray(head.landmark_mean, np.float64)
  return float(_similarity(mean[marked.landmarks], marked)[3])


def _similarity(ours, marked):
  """Returns scale, turn and shift of our points onto theirs, and the misfit."""
  theirs, start = marked.points, 1 / marked.noise**2
  weight = start
  for _ in range(10):
    share = weight / weight.sum()
    centres = share @ ours, share @ theirs
    a, b = ours - centres[0], theirs - centres[1]
    u, sizes, vt = np.linalg.svd((share[:, None] * b).T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = (u * sign) @ vt
    scale = (sizes * sign).sum() / (share @ (a**2).sum(1))
    gap = np.linalg.norm(b - scale * a @ turn.T, axis=1) / abs(scale)
    weight = start / (1 + (gap / 0.02) ** 2)
  return scale, turn, centres[1] - scale * turn @ centres[0], np.median(gap)


def _warp(surface, points, normals, marked):
  """Brings what the identity modes leave over to the mesh, smoothly."""
  for smoothing in _STIFFNESS:
    nearby = surface.nearest(points, normals)
    away = nearby.points - points
    same = (nearby.normals * normals).sum(1) > nearest.FACING
    same &= np.linalg.norm(away, axis=1) < 3 * _FARTHEST
    if marked is not None:
      certain = marked.noise < _BROW_NOISE
      there = marked.landmarks[certain]
      away[there] = marked.points[certain] - points[there]
      same[there] = True
    if same.sum() < 20:
      raise InputError("the mesh has no face where one is expected")
    bend = interpolate.RBFInterpolator(
      points[same], away[same], smoothing=smoothing, kernel="linear"
    )
    points = points + bend(points)
  return points


def _points(head: morphable.FaceModel):
  """Returns points of the face: positions, identity modes, normals."""
  vertices = np.asarray(head.mean, np.float64)
  triangles = nearest.skin(np.asarray(head.triangles))
  total = np.zeros_like(vertices)
  for corner in triangles.T:
    np.add.at(total, corner, nearest.triangle_normals(vertices, triangles))
  corners = total[head.landmark_triangles]
  normals = np.einsum("lkc,lk->lc", corners, head.landmark_weights)
  chin, ear = head.landmark_mean[152, 1], head.landmark_mean[234, 2]
  face = np.unique(triangles)
  face = face[(vertices[face, 1] > chin) & (vertices[face, 2] > ear - 0.1)]
  face = face[::2]  # Enough, and in half the time.
  normals = np.concatenate([normals, total[face]])
  return (
    np.concatenate([head.landmark_mean, head.mean[face]]).astype(np.float64),
    np.concatenate(
      [head.landmark_identity, head.identity_basis[:, face]], axis=1
    ).astype(np.float64),
    normals / np.linalg.norm(normals, axis=1, keepdims=True),
  )
