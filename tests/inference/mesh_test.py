"""The mesh: the right place, closed, outwards, coloured, readable again."""

import collections
import math
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from flax import nnx

from pir_jax.geometry import compositing, triplane
from pir_jax.inference import mesh as mesh_lib
from pir_jax.models import renderer
from pir_jax.types import InputError

RADIUS = 0.3
CENTRE = np.array([0.05, -0.1, 0.02], np.float32)


class Ball(nnx.Module):
  """Stands for a renderer: matter in a ball, coloured by its place."""

  def sample(self, bordered, points):
    del bordered
    away = jnp.linalg.norm(points - CENTRE, axis=-1)
    return renderer.Samples(points + 0.5, 1 + 200 * (RADIUS - away))


class Head(nnx.Module):
  """Stands for a generator."""

  def __init__(self, look):
    self.config = types.SimpleNamespace(
      renderer=types.SimpleNamespace(box_warp=1.0)
    )
    self.renderer = look


@pytest.fixture
def field():
  return mesh_lib.Field(Head(Ball()), jnp.zeros((1, 3, 2, 2, 1)))


def ball(num, radius=RADIUS, centre=(0, 0, 0), box=1.0):
  """Linear across its surface, where the density is 10."""
  x = mesh_lib.cell_middles(num, box)
  places = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1)
  away = np.linalg.norm(places - np.float32(centre), axis=-1)
  return np.float32(np.maximum(10 + 100 * (radius - away), 0))


def assert_closed(faces):
  """Every edge is in two faces, once each way: closed, and of one winding."""
  edges = collections.Counter(
    (int(a), int(b))
    for face in faces
    for a, b in zip(face, np.roll(face, -1), strict=True)
  )
  assert set(edges.values()) == {1}
  assert all((b, a) in edges for a, b in edges)


def volume(vertices, faces):
  """By the divergence theorem: positive if the faces look outwards."""
  a, b, c = np.moveaxis(np.float64(vertices)[faces], 1, 0)
  return float(np.sum(a * np.cross(b, c)) / 6)


@pytest.mark.parametrize("box", [1.0, 2.0])
def test_ball_is_where_it_is(box):
  num = 24
  vertices, faces = mesh_lib.contour(
    ball(num, RADIUS * box, CENTRE * box, box), 10.0, box
  )
  away = np.linalg.norm(vertices - CENTRE * box, axis=-1)
  # Linear between grid points, the distance is convex: off by less than
  # cell^2 / (8 radius) = 0.06 of a cell.
  np.testing.assert_allclose(away, RADIUS * box, atol=0.06 * box / num)
  assert_closed(faces)
  # The chords of a sphere of 7 cells cut off about 1 % of it.
  want = 4 / 3 * np.pi * (RADIUS * box) ** 3
  assert 0.97 * want < volume(vertices, faces) < want


def test_matter_at_the_border_is_closed_there():
  num = 16
  grid = np.full((num, num, num), 50, np.float32)
  vertices, faces = mesh_lib.contour(grid, 10.0, 1.0)
  assert_closed(faces)
  # Between the last middles of cells and half a cell outside the box.
  size = np.abs(vertices).max(0)
  assert np.all((size > 0.5 - 0.5 / num) & (size < 0.5 + 0.5 / num))
  assert volume(vertices, faces) > 0.9


def test_only_the_largest_part_is_kept():
  small, large = ball(32, 0.08, (-0.3, 0, 0)), ball(32, 0.2, (0.2, 0, 0))
  alone = mesh_lib.contour(large, 10.0, 1.0)
  both = mesh_lib.contour(np.maximum(small, large), 10.0, 1.0)
  np.testing.assert_array_equal(both[0], alone[0])
  np.testing.assert_array_equal(both[1], alone[1])


def test_level_that_nothing_reaches_names_one_that_is_reached():
  grid = ball(16)
  with pytest.raises(InputError, match="--level=") as error:
    mesh_lib.contour(grid, 1e4, 1.0)
  told = float(str(error.value).split("--level=")[1].split()[0])
  mesh_lib.contour(grid, told, 1.0)
  with pytest.raises(InputError, match="train it again"):
    mesh_lib.contour(np.full((8, 8, 8), np.nan, np.float32), 1.0, 1.0)


def test_default_level_is_half_opaque_over_an_eighth():
  for box in (1.0, 2.0):
    passed = math.exp(-mesh_lib.default_level(box) * box / 8)
    assert math.isclose(passed, 0.5)


def test_density_is_what_the_compositing_absorbs():
  raw = jnp.linspace(-8.0, 300.0, 40)
  got = mesh_lib.activated(raw)
  depths = jnp.broadcast_to(jnp.array([0.0, 0.01]), (40, 2))
  want = compositing.interval_weights(jnp.stack([raw, raw], -1), depths)
  np.testing.assert_allclose(-jnp.expm1(-0.01 * got), want[:, 0], rtol=1e-4)
  # Where a network is dense beyond measure a surface can still be put.
  assert np.isfinite(mesh_lib.activated(jnp.array([1e9]))).all()


def test_extract_places_colours_and_normals(field):
  mesh = mesh_lib.extract(field, 32, 20.0)
  away = mesh.vertices - CENTRE
  # softplus is linear at 20, so the surface is 0.1 inside the radius of 0.
  radius = RADIUS - 20 / 200
  np.testing.assert_allclose(
    np.linalg.norm(away, axis=-1), radius, atol=0.1 / 32
  )
  np.testing.assert_allclose(
    mesh.colors / 255, np.clip(mesh.vertices + 0.5, 0, 1), atol=0.51 / 255
  )
  # Mean of the faces around a vertex, of 1 / 6 of the radius in size.
  assert np.min(np.sum(mesh.normals * away / radius, -1)) > 0.97
  assert_closed(mesh.faces)
  assert volume(mesh.vertices, mesh.faces) > 0
  assert mesh.highest <= 200 * RADIUS + 1


def test_chunks_do_not_show(field, monkeypatch):
  whole = field.grid(8)
  monkeypatch.setattr(mesh_lib, "_CHUNK", 150)  # Two slabs and a rest.
  np.testing.assert_allclose(field.grid(8), whole, rtol=1e-6)
  x = mesh_lib.cell_middles(8, 1.0)
  point = np.array([[x[6], x[2], x[4]]])
  np.testing.assert_allclose(field.at(point)[0][0], whole[6, 2, 4], rtol=1e-6)


def test_field_of_a_network_is_its_density_and_raw_colour():
  look = renderer.Renderer(renderer.Config(), 4, rngs=nnx.Rngs(0))
  planes = 3 * jax.random.normal(jax.random.key(0), (1, 3, 8, 8, 4))
  points = jax.random.uniform(jax.random.key(1), (20, 3)) - 0.5
  density, color = mesh_lib.Field(Head(look), planes).at(np.asarray(points))
  samples = jax.jit(look.sample)(triplane.border(planes), points[None])
  want = jax.nn.softplus(samples.density[0] - 1)
  assert np.ptp(want) > 0.01
  np.testing.assert_allclose(density, want, rtol=1e-4)
  np.testing.assert_allclose(color, samples.color[0, :, :3], atol=1e-5)


@pytest.fixture(scope="module")
def mesh():
  vertices, faces = mesh_lib.contour(ball(8), 10.0, 1.0)
  num = len(vertices)
  normals = vertices / np.linalg.norm(vertices, axis=-1, keepdims=True)
  colors = np.random.default_rng(0).integers(0, 256, (num, 3), np.uint8)
  return mesh_lib.Mesh(vertices, faces, normals, colors, 10.0)


@pytest.mark.parametrize("suffix", mesh_lib.SUFFIXES)
def test_files_hold_the_mesh(mesh, tmp_path, suffix):
  path = tmp_path / f"head{suffix}"
  mesh_lib.save(mesh, path)
  assert list(tmp_path.iterdir()) == [path]
  got = trimesh.load(path, process=False)
  if suffix == ".glb":
    (got,) = got.geometry.values()
  np.testing.assert_allclose(got.vertices, mesh.vertices, atol=1e-7)
  np.testing.assert_array_equal(got.faces, mesh.faces)
  np.testing.assert_allclose(got.vertex_normals, mesh.normals, atol=1e-6)
  if suffix == ".ply":
    np.testing.assert_array_equal(got.visual.vertex_colors[:, :3], mesh.colors)
    return
  linear = got.visual.vertex_attributes["color"][:, :3] / 255
  encoded = np.where(
    linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
  )
  # A byte of linear light is up to 12.92 of sRGB's where it is dark.
  np.testing.assert_allclose(encoded, mesh.colors / 255, atol=6.5 / 255)
  assert got.visual.material.metallicFactor == 0


def test_other_planes_and_params_are_decoded_by_the_same_program(monkeypatch):
  once = chex.assert_max_traces(mesh_lib.activated, n=1)
  monkeypatch.setattr(mesh_lib, "activated", once)
  head = scaled_head(1.0)
  field = mesh_lib.Field(head, jnp.zeros((1, 3, 2, 2, 1)))
  points = np.zeros((5, 3), np.float32)
  before = field.at(points)[0]
  other = field.of(scaled_head(2.0), jnp.ones((1, 3, 2, 2, 1)))
  # Up to the next power of two it is the same size as well.
  assert np.all(other.at(points[:5])[0] > before)
  assert other.at(np.zeros((7, 3), np.float32))[0].shape == (7,)
  np.testing.assert_array_equal(field.at(points)[0], before)


def scaled_head(scale):
  look = Scaled()
  look.scale = nnx.Param(jnp.float32(scale))
  return Head(look)


class Scaled(nnx.Module):
  """A renderer whose density is its one param."""

  def sample(self, bordered, points):
    del bordered
    ones = jnp.ones(points.shape[:-1])
    return renderer.Samples(points, self.scale[...] * ones)
