"""The implicit face as a triangle mesh: density grid -> surface -> file.

n side of the grid, p points, v vertices, f faces.
"""

import copy
import math
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from scipy.sparse import coo_array, csgraph
from skimage import measure

from pir_jax.geometry import compositing, triplane
from pir_jax.types import InputError

SUFFIXES = (".ply", ".glb")
_CHUNK = 2**16  # Points decoded at once: some 100 MB at the paper's size.
# A stretch so short that no density of a surface absorbs all of its light.
_SHORT = 1e-3
_OPAQUE = 1 - 1e-6  # Densities above 14000 are taken as that.


class Mesh(NamedTuple):
  """A closed surface in the head's frame, y up, in head units.

  Attributes:
    vertices: each once.
    faces: counter-clockwise, seen from outside.
    normals: of the vertices, outwards.
    colors: of the vertices, sRGB.
    highest: density anywhere on the grid it was made from.
  """

  vertices: Float[np.ndarray, "v 3"]
  faces: Int[np.ndarray, "f 3"]
  normals: Float[np.ndarray, "v 3"]
  colors: UInt8[np.ndarray, "v 3"]
  highest: float


def default_level(box: float = 1.0) -> float:
  """Density at which half the light is absorbed over an eighth of the box.

  Our choice, about what a viewer takes for the surface: a nose is an eighth of
  the box, and should be more than half opaque. Networks that learnt a sharp
  surface have far higher densities at once and change little with the level;
  where the volume stayed soft, a level much above leaves holes.
  """
  return math.log(2) * 8 / box


class Field:
  """Density and colour of feature planes at points, in chunks of few sizes."""

  def __init__(self, generator: nnx.Module, planes: Float[Array, "1 3 h w c"]):
    self.box = generator.config.renderer.box_warp
    graphdef, self._params = nnx.split(generator.renderer)
    self._bordered = triplane.border(planes)

    def decode(params, bordered, points):
      samples = nnx.merge(graphdef, params).sample(bordered, points[None])
      return activated(samples.density[0]), samples.color[0, :, :3]

    self._decode = jax.jit(decode)

  def of(
    self, generator: nnx.Module, planes: Float[Array, "1 3 h w c"]
  ) -> "Field":
    """Returns the field of others of the same sizes; compiles nothing."""
    other = copy.copy(self)
    _, other._params = nnx.split(generator.renderer)
    other._bordered = triplane.border(planes)
    return other

  def at(
    self, points: Float[np.ndarray, "p 3"]
  ) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
    """Returns densities, and colours in about [0, 1]."""
    num = len(points)
    # Few chunk sizes are few compiled programs; the filling is thrown away.
    chunk = min(_CHUNK, 1 << max(0, num - 1).bit_length())
    points = np.pad(np.float32(points), ((0, -num % chunk), (0, 0)))
    parts = [
      jax.device_get(
        self._decode(self._params, self._bordered, points[i : i + chunk])
      )
      for i in range(0, len(points), chunk)
    ]
    density, color = (np.concatenate(p)[:num] for p in zip(*parts, strict=True))
    return density, color

  def grid(self, num: int) -> Float[np.ndarray, "n n n"]:
    """Returns densities at the middles of the box's num^3 cells, by x, y, z."""
    places = cell_middles(num, self.box)
    # Slab by slab: the points of a whole fine grid would fill the memory.
    y, z = (a.ravel() for a in np.meshgrid(places, places, indexing="ij"))
    slabs = max(1, _CHUNK // num**2)
    parts = []
    for start in range(0, num, slabs):
      x = places[start : start + slabs]
      points = np.stack(
        [np.repeat(x, num**2), np.tile(y, len(x)), np.tile(z, len(x))], -1
      )
      parts.append(self.at(points)[0].reshape(-1, num, num))
    return np.concatenate(parts)


def activated(density: Float[Array, "p"]) -> Float[Array, "p"]:
  """The decoder's density as what it absorbs: light lost per head unit."""
  # Asked of the compositing itself, which alone knows the activation.
  ends = jnp.stack([density, density], -1)
  depths = jnp.broadcast_to(jnp.array([0.0, _SHORT]), ends.shape)
  absorbed = compositing.interval_weights(ends, depths)[..., 0]
  return -jnp.log1p(-jnp.minimum(absorbed, _OPAQUE)) / _SHORT


def cell_middles(num: int, box: float) -> Float[np.ndarray, "n"]:
  """Coordinates of the middles of num cells of a box around 0."""
  return np.float32(((np.arange(num) + 0.5) / num - 0.5) * box)


def contour(
  grid: Float[np.ndarray, "n n n"], level: float, box: float
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
  """The largest closed surface where the density is `level`.

  Args:
    grid: densities at the middles of a box's cells, by x, y, z.
    level: density of the surface.
    box: side of the box.

  Raises:
    InputError: no density is as high, or they are not finite.
  """
  highest = float(grid.max())
  if not np.isfinite(grid).all():
    raise InputError("the run's densities are not finite: train it again.")
  if not 0 < level < highest:
    raise InputError(
      f"there is no surface of density {level:g}: the densest point has "
      f"{highest:.3g}, so say --level={highest / 3:.2g} or so."
    )
  # Emptiness around the box: matter that reaches its border gets a wall there,
  # and the mesh is closed. The library's faces are clockwise: turned round.
  vertices, faces, _, _ = measure.marching_cubes(np.pad(grid, 1), level)
  vertices, faces = _largest(vertices, faces[:, ::-1])
  num = grid.shape[0]
  return np.float32(((vertices - 0.5) / num - 0.5) * box), faces


def _largest(vertices, faces):
  """The connected part with the most faces; the others are dropped."""
  num = len(vertices)
  starts, ends = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
  graph = coo_array((np.ones(len(starts)), (starts, ends)), shape=(num, num))
  _, part = csgraph.connected_components(graph, directed=False)
  chosen = np.bincount(part[faces[:, 0]]).argmax()
  kept = part == chosen
  number = np.cumsum(kept) - 1
  return vertices[kept], number[faces[kept[faces[:, 0]]]].astype(np.int32)


def extract(field: Field, num: int, level: float) -> Mesh:
  """The surface of a field at a density, from a grid of num^3 points.

  Raises:
    InputError: no density is as high.
  """
  grid = field.grid(num)
  vertices, faces = contour(grid, level, field.box)
  _, colors = field.at(vertices)
  return Mesh(
    vertices,
    faces,
    normals=np.float32(_trimesh(vertices, faces).vertex_normals),
    colors=np.clip(colors * 255 + 0.5, 0, 255).astype(np.uint8),
    highest=float(grid.max()),
  )


def _trimesh(vertices, faces, **options) -> trimesh.Trimesh:
  # process=False: vertices that are there are neither merged nor put in order.
  return trimesh.Trimesh(vertices, faces, process=False, **options)


def save(mesh: Mesh, path: pathlib.Path) -> None:
  """Writes a .ply or .glb with normals and colours."""
  ply = path.suffix.lower() == ".ply"
  colors = mesh.colors if ply else _linear(mesh.colors)
  made = _trimesh(
    mesh.vertices,
    mesh.faces,
    vertex_normals=mesh.normals,
    vertex_colors=colors,
  )
  if ply:
    made.export(path, file_type="ply", vertex_normal=True)
  else:
    made.export(
      path,
      file_type="glb",
      include_normals=True,
      tree_postprocessor=_add_dull_material,
    )


def _linear(colors) -> UInt8[np.ndarray, "v 3"]:
  # glTF 2.0 (3.7.2.1): vertex colours are linear. IEC 61966-2-1's curve.
  x = colors / 255
  linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
  return np.round(linear * 255).astype(np.uint8)


def _add_dull_material(tree) -> None:
  # glTF's material where none is named is bare metal, dark in most viewers.
  tree["materials"] = [
    {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}
  ]
  for mesh in tree["meshes"]:
    for primitive in mesh["primitives"]:
      primitive["material"] = 0
