"""Nearest points of a mesh, beside a search of every triangle by hand."""

import numpy as np
import pytest

from pir_jax.pretrained.heads import nearest

# Two sheets, one above the other, looking away from each other; each a grid.
SIDE = 6


@pytest.fixture(scope="module")
def surface():
  x, y = (c.ravel() for c in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
  top = np.stack([x, y, 0.3 * np.sin(x)], -1)
  corner = (np.arange(SIDE - 1)[:, None] * SIDE + np.arange(SIDE - 1)).ravel()
  a, b, c, d = corner, corner + 1, corner + SIDE, corner + SIDE + 1
  faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
  below = top - [0, 0, 0.5]
  return nearest.Surface(
    np.concatenate([top, below]).astype(np.float64),
    np.concatenate([faces, faces[:, ::-1] + len(top)]),
  )


def _by_hand(point, corners):
  """The nearest of very many points of a triangle."""
  a, b = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60))
  a, b = a[a + b <= 1], b[a + b <= 1]
  weights = np.stack([1 - a - b, a, b], -1)
  return np.linalg.norm(weights @ corners - point, axis=1).min()


def test_points_are_the_nearest_of_all_triangles(surface):
  points = np.random.default_rng(0).uniform(-1, SIDE, (40, 3))
  found = surface.nearest(points)
  np.testing.assert_allclose(found.weights.sum(1), 1)
  assert found.weights.min() >= 0
  corners = surface.corners[found.faces]
  again = np.einsum("nkc,nk->nc", corners, found.weights)
  np.testing.assert_allclose(again, found.points, atol=1e-12)
  for point, place in zip(points, found.points, strict=True):
    expected = min(_by_hand(point, c) for c in surface.corners)
    # The search by hand knows only a grid of points of a triangle.
    assert np.linalg.norm(place - point) <= expected + 1e-9
    assert np.linalg.norm(place - point) > expected - 0.05


def test_only_what_looks_the_same_way_is_found(surface):
  points = np.full((2, 3), 2.3) * [1, 1, 0] + [0, 0, -0.2]
  looks = np.array([[0, 0, 1.0], [0, 0, -1.0]])
  found = surface.nearest(points, looks)
  assert found.normals[0, 2] > 0 > found.normals[1, 2]
  assert found.points[0, 2] > found.points[1, 2]


def test_only_allowed_triangles_are_found(surface):
  points = np.full((2, 3), 2.3) * [1, 1, 0]
  allowed = np.zeros((2, len(surface.triangles)), bool)
  allowed[0, :7] = allowed[1, 60:] = True
  found = surface.nearest(points, None, allowed)
  assert found.faces[0] < 7
  assert found.faces[1] >= 60


def test_skin_is_the_largest_part():
  triangles = np.array([[0, 1, 2], [3, 4, 5], [4, 5, 6], [7, 8, 9]])
  np.testing.assert_array_equal(nearest.skin(triangles), triangles[1:3])


def test_border_is_where_a_triangle_has_no_neighbour(surface):
  x, y = surface.vertices[surface.triangles][..., :2].transpose(2, 0, 1)
  edge = ((x == 0) | (x == SIDE - 1) | (y == 0) | (y == SIDE - 1)).any(1)
  np.testing.assert_array_equal(nearest.at_border(surface.triangles), edge)
