"""The nearest points of a mesh.

v vertices, f triangles, n points, c candidates.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse, spatial
from scipy.sparse import csgraph

FACING = 0.5  # Least cosine between normals of points that may be one.
_NUM_CANDIDATES = 12


class NearestPoints(NamedTuple):
  """Nearest points: positions, normals, their triangles and weights in them."""

  points: np.ndarray
  normals: np.ndarray
  faces: np.ndarray
  weights: np.ndarray


class Surface:
  """Triangles, with a search for their nearest points."""

  def __init__(self, vertices: np.ndarray, triangles: np.ndarray):
    self.vertices, self.triangles = vertices, triangles
    self.corners = vertices[triangles]
    self.normals = triangle_normals(vertices, triangles)
    self.at_border = at_border(triangles)
    self._tree = spatial.cKDTree(self.corners.mean(1))

  def nearest(
    self,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"] | None = None,
    allowed: Bool[np.ndarray, "n f"] | None = None,
  ) -> NearestPoints:
    """Returns the nearest allowed points whose normals face the same way."""
    if allowed is None:
      chosen = self._candidates(self._tree, points)
    else:
      chosen = np.empty((len(points), _NUM_CANDIDATES), int)
      kinds, kind = np.unique(allowed, axis=0, return_inverse=True)
      for number, row in enumerate(kinds):
        faces = np.flatnonzero(row)
        tree = spatial.cKDTree(self.corners[faces].mean(1))
        mine = kind.ravel() == number
        chosen[mine] = faces[self._candidates(tree, points[mine])]
    weights = barycentric(points[:, None], self.corners[chosen])
    near = np.einsum("nck,nckx->ncx", weights, self.corners[chosen])
    cost = np.linalg.norm(near - points[:, None], axis=-1)
    if normals is not None:
      facing = np.einsum("ncx,nx->nc", self.normals[chosen], normals)
      cost = cost + 10.0 * (facing < FACING)  # If there is none, the nearest.
    best = cost.argmin(1)
    rows = np.arange(len(points))
    faces = chosen[rows, best]
    return NearestPoints(
      near[rows, best], self.normals[faces], faces, weights[rows, best]
    )

  def _candidates(self, tree, points) -> np.ndarray:
    count = min(_NUM_CANDIDATES, tree.n)
    chosen = tree.query(points, count)[1].reshape(len(points), count)
    return np.pad(chosen, ((0, 0), (0, _NUM_CANDIDATES - count)), mode="edge")


def triangle_normals(
  vertices: Float[np.ndarray, "v 3"], triangles: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "f 3"]:
  """Returns unit normals; zero where a triangle has no area."""
  a, b, c = (vertices[corner] for corner in triangles.T)
  normal = np.cross(b - a, c - a)
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  return normal / np.maximum(length, 1e-12)


def skin(triangles: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "_ 3"]:
  """Returns the largest connected part: neither eyeballs nor teeth."""
  size = int(triangles.max()) + 1
  edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
  graph = sparse.coo_array((np.ones(len(edges)), edges.T), (size, size))
  _, part = csgraph.connected_components(graph, directed=False)
  owner = part[triangles[:, 0]]
  return triangles[owner == np.bincount(owner).argmax()]


def barycentric(points, corners) -> np.ndarray:
  """Returns the weights of the points of triangles nearest to points."""
  a, b, c = (corners[..., k, :] for k in range(3))
  edges = (b - a, c - a)
  d00, d01, d11 = (
    (edges[i] * edges[j]).sum(-1) for i, j in ((0, 0), (0, 1), (1, 1))
  )
  d20, d21 = (((points - a) * edge).sum(-1) for edge in edges)
  area = np.maximum(d00 * d11 - d01**2, 1e-20)
  second = (d11 * d20 - d01 * d21) / area
  third = (d00 * d21 - d01 * d20) / area
  inside = np.stack([1 - second - third, second, third], -1)
  best, least = inside, np.where((inside >= 0).all(-1), 0.0, np.inf)
  # Else it lies on one of the edges.
  for i, j in ((0, 1), (1, 2), (2, 0)):
    start, way = corners[..., i, :], corners[..., j, :] - corners[..., i, :]
    along = ((points - start) * way).sum(-1) / np.maximum(
      (way * way).sum(-1), 1e-20
    )
    along = np.clip(along, 0, 1)
    far = np.linalg.norm(start + along[..., None] * way - points, axis=-1)
    on_edge = np.zeros_like(inside)
    on_edge[..., i], on_edge[..., j] = 1 - along, along
    better = far < least
    best = np.where(better[..., None], on_edge, best)
    least = np.where(better, far, least)
  return best


def at_border(triangles: Int[np.ndarray, "f 3"]) -> Bool[np.ndarray, "f"]:
  """Returns which triangles have a corner on an edge that has only one side."""
  edges = np.concatenate([triangles[:, [k, (k + 1) % 3]] for k in range(3)])
  ends, count = np.unique(np.sort(edges), axis=0, return_counts=True)
  return np.isin(triangles, ends[count == 1]).any(1)
