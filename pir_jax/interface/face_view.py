"""The implicit face, quickly enough to be looked at while it is moved.

Planes are made once for an expression; then each camera costs its rays alone.

h side of a picture, n rays a side, r side of a rendering, e expression and i
identity coefficients.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from pir_jax.geometry import cameras as cameras_lib
from pir_jax.geometry import compositing
from pir_jax.inference import mesh as mesh_lib
from pir_jax.inference import viewer as viewer_lib
from pir_jax.runtime import compiler_options
from pir_jax.types import Cameras, FaceSpace

KINDS = ("image", "depth", "normals")
# Networks of EG3D's weights know cameras at one distance only; a live camera
# comes nearer.
_REFERENCE = 2.7
_FINEST = 128  # Rays a side: more show nothing that the planes hold.
_BEFORE, _BEHIND = 0.4, 0.1  # The middle of the box, in boxes: scale of depths.
_GRIDS = (32, 64, 96)  # Cells a side, from which meshes are made.


class Rung(NamedTuple):
  """How finely something is rendered.

  Attributes:
    num: rays a side of a picture, or cells a side of a mesh's grid.
    upsampled: whether the network's super-resolution makes the picture of
      these rays; else their own colours are shown.
  """

  num: int
  upsampled: bool = False


class FaceView:
  """A trained implicit face and one person, compiled once for each `Rung`.

  Attributes:
    space: of the expressions.
    mean: the person's expression on average.
    box: side of the cube that holds the head.
  """

  def __init__(
    self,
    generator: nnx.Module,
    space: FaceSpace,
    identity: Float[np.ndarray, "i"],
    mean: Float[np.ndarray, "e"],
  ):
    config = generator.config
    self.space, self.mean = space, np.float32(mean)
    self.box = config.renderer.box_warp
    self._identity = np.float32(identity)[None]
    self._config = config
    # The params are an argument: other ones need no compilation.
    self._graphdef, self._params = nnx.split(generator)
    self._planes: tuple[bytes, Any, Any] | None = None
    self._field: mesh_lib.Field | None = None
    reference = config.renderer.ray_reference or _REFERENCE
    renderer = dataclasses.replace(config.renderer, ray_reference=reference)

    def planes(params, identity, expression):
      network = nnx.merge(self._graphdef, params)
      ws = network.map(identity, expression)
      return ws, network.planes(ws)

    def look(params, ws, planes, vector, rung, kind):
      network = nnx.merge(self._graphdef, params)
      network.renderer.config = renderer
      camera = cameras_lib.from_vector(vector[None])
      seen = network.renderer(planes, camera, rung.num)
      if kind != "image":
        return to_bytes(shape_picture(seen, camera, kind, self.box))
      features = seen.feature.reshape(1, rung.num, rung.num, -1)
      if not rung.upsampled:
        return to_bytes(0.5 + 0.5 * features[0, ..., :3])
      image = 0.5 + 0.5 * network.upsampler(features, ws[:, -1])[0]
      return to_bytes(image * near_matter(seen.weight_sum, len(image)))

    options = compiler_options.usual()
    self._make_planes = jax.jit(planes, compiler_options=options)
    self._look = jax.jit(look, static_argnums=(4, 5), compiler_options=options)

  @classmethod
  def open(cls, model: str | pathlib.Path, person: int = 0) -> "FaceView":
    """Opens a stage 2 run, or the folder in which it is called triplane.

    Raises:
      InputError: there is none, or it knows no such person.
    """
    viewer = viewer_lib.Viewer.open(model, person)
    return cls(viewer.generator, viewer.space, viewer.identity, viewer.mean)

  def rungs(self, kind: str) -> tuple[Rung, ...]:
    """The ladder of a kind of picture, or of a "mesh", coarse to fine."""
    if kind == "mesh":
      return tuple(Rung(num) for num in _GRIDS)
    side = self._config.feature_resolution
    if kind == "image":
      # The network was trained with so many rays, so that is its picture.
      half = max(1, side // 2)
      return Rung(half), Rung(side), Rung(side, upsampled=True)
    finest = max(side, min(4 * side, _FINEST))
    return tuple(Rung(num) for num in sorted({side, finest}))

  def update(self, generator: nnx.Module) -> None:
    """Takes other params of the same network; compiles nothing."""
    self._params = nnx.split(generator)[1]
    self.forget()

  def forget(self) -> None:
    """Forgets the planes of the last expression."""
    self._planes = None

  def render(
    self,
    expression: Float[np.ndarray, "e"],
    camera: Cameras,
    kind: str,
    rung: Rung,
  ) -> UInt8[np.ndarray, "h h 3"]:
    """A picture of the face.

    Args:
      expression: raw coefficients.
      camera: of the window, without a batch axis.
      kind: image; depth, where bright is near; or normals, red to the head's
        left, green up, blue ahead.
      rung: one of `rungs(kind)`.
    """
    ws, planes = self._planes_at(expression)
    vector = np.asarray(cameras_lib.to_vector(camera))
    seen = self._look(self._params, ws, planes, vector, rung, kind)
    return np.asarray(seen)

  def mesh(
    self, expression: Float[np.ndarray, "e"], rung: Rung
  ) -> mesh_lib.Mesh:
    """The surface of the face.

    Raises:
      InputError: the volume is too thin to have one.
    """
    _, planes = self._planes_at(expression)
    generator = nnx.merge(self._graphdef, self._params)
    if self._field is None:
      self._field = mesh_lib.Field(generator, planes)
    field = self._field.of(generator, planes)
    level = mesh_lib.default_level(self.box)
    return mesh_lib.extract(field, rung.num, level)

  def _planes_at(self, expression) -> tuple[Any, Any]:
    key = np.float32(expression).tobytes()
    if self._planes is None or self._planes[0] != key:
      known = np.float32(self.space.standardise(np.float32(expression)))
      made = self._make_planes(self._params, self._identity, known[None])
      self._planes = (key, *made)
    return self._planes[1:]


def shape_picture(
  seen: compositing.Rendering, camera: Cameras, kind: str, box: float
) -> Float[Array, "r r 3"]:
  """Depth or normals as colours in [0, 1]; black where nothing is met.

  Depths have one scale for all pictures, from before the face to its ears, so
  that nothing flickers while the head is turned.

  Args:
    seen: r^2 rays of one camera.
    camera: with a batch axis of 1.
    kind: "depth" or "normals".
    box: side of the box.
  """
  side = round(seen.depth.shape[-1] ** 0.5)
  depth, weight_sum = (
    x.reshape(1, side, side) for x in (seen.depth, seen.weight_sum)
  )
  met = weight_sum[0, ..., None] > viewer_lib.SEEN
  if kind == "normals":
    normals = viewer_lib.normals_of_depth(depth, weight_sum, camera)[0]
    return jnp.where(met, 0.5 + 0.5 * normals, 0.0)
  middle = jnp.linalg.norm(jnp.asarray(camera.pose)[0, :3, 3])
  near = (middle - depth[0]) / box  # Than the middle, in boxes.
  near = jnp.clip((near + _BEHIND) / (_BEFORE + _BEHIND), 0, 1)
  # Matter is never quite black, so that it can be told from nothing.
  bright = jnp.where(met, 0.15 + 0.85 * near[..., None], 0.0)
  return jnp.broadcast_to(bright, (side, side, 3))


def near_matter(
  weight_sum: Float[Array, "1 n"], side: int
) -> Float[Array, "h h 1"]:
  """1 on the head and a ray around it, 0 beyond, in a picture of h^2 pixels.

  Super-resolution was hardly trained beyond: it leaves bright corners there.

  Args:
    weight_sum: of a square of rays.
    side: h.
  """
  num = round(weight_sum.shape[-1] ** 0.5)
  met = jnp.clip(2 * weight_sum.reshape(num, num), 0, 1)
  wider = jax.lax.reduce_window(met, 0.0, jax.lax.max, (3, 3), (1, 1), "SAME")
  return jax.image.resize(wider, (side, side), "linear")[..., None]


def to_bytes(picture: Float[Array, "r r 3"]) -> UInt8[Array, "r r 3"]:
  """Colours in [0, 1] -> bytes; what is outside is clipped."""
  return jnp.uint8(jnp.clip(255 * picture + 0.5, 0, 255))
