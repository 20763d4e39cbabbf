"""The implicit face seen from anywhere: images, depths, normals.

v views, h side of the image, r side of the feature image, e expression and i
identity coefficients.
"""

import difflib
import math
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from PIL import Image

from pir_jax.data.dataset import Clip
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.geometry import rays
from pir_jax.media import plots, video_writer, whole_file
from pir_jax.runs.experiment import prior_of
from pir_jax.runs.run import generator_of, open_run, place_of, read_record
from pir_jax.runtime import compiler_options
from pir_jax.types import FRAME_RATE, Cameras, FaceSpace, InputError

COMMENT = "AI-generated: face rendered by pir_jax"
SECONDS = 4  # Of a turntable.
USUAL = (-0.5, 1.5)  # Raw coefficients outside are far from anything seen.
_DISTANCE = 2.7  # About where the cameras of prepared clips are.
SEEN = 0.5  # Of a ray's light: what less of it meets has no depth.
# As one program: one by one, its operations take longer to compile.
_orbit = jax.jit(cameras_lib.orbit)


class Viewpoint(NamedTuple):
  """Where a camera that goes round the head starts.

  Attributes:
    turn: degrees about the vertical axis, 0 in front.
    nod: degrees over the horizon.
    distance: from the middle of the head.
    intrinsics: of the window.
  """

  turn: float
  nod: float
  distance: float
  intrinsics: Float[np.ndarray, "3 3"]


class Pictures(NamedTuple):
  """What cameras see.

  Attributes:
    image: RGB in about [-1, 1].
    depth: expected distance from the camera, head units.
    weight_sum: how much of each ray ends in matter.
    normals: unit vectors in the head's frame; 0 where nothing is met.
  """

  image: Float[np.ndarray, "v h h 3"]
  depth: Float[np.ndarray, "v r r"]
  weight_sum: Float[np.ndarray, "v r r"]
  normals: Float[np.ndarray, "v r r 3"]


def in_front(box: float = 1.0) -> Viewpoint:
  """Straight ahead; the window is the middle section of the head's box."""
  # A run does not say through which cameras it was trained; this is near.
  focal = _DISTANCE / box
  k = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], np.float32)
  return Viewpoint(0.0, 0.0, _DISTANCE, k)


def of_clip(folder: str | pathlib.Path) -> Viewpoint:
  """The mean camera of a prepared clip.

  Raises:
    InputError: it is not a prepared clip.
  """
  track = Clip.open(folder).track
  pose = track.pose[track.present].astype(np.float64)
  intrinsics = track.intrinsics[track.present].astype(np.float64)
  eye = pose[:, :3, 3]
  # Ours looks at the head's middle and the clip's do not: the window is put
  # where the clip's has that middle.
  local = -np.einsum("tji,tj->ti", pose[:, :3, :3], eye)
  seen = np.einsum("tij,tj->ti", intrinsics, local)
  mean = intrinsics.mean(0)
  mean[:2, 2] = (seen[:, :2] / seen[:, 2:]).mean(0)
  x, y, z = eye.mean(0)
  return Viewpoint(
    turn=math.degrees(math.atan2(x, z)),
    nod=math.degrees(math.atan2(y, math.hypot(x, z))),
    distance=float(np.linalg.norm(eye, axis=-1).mean()),
    intrinsics=mean.astype(np.float32),
  )


def around(view: Viewpoint, turns: Float[np.ndarray, "v"]) -> Cameras:
  """Cameras moved from a viewpoint by degrees about the vertical axis."""
  turn = jnp.radians(jnp.asarray(view.turn + turns, jnp.float32))
  nod = jnp.full_like(turn, math.radians(view.nod))
  pose = _orbit(turn, nod, jnp.full_like(turn, view.distance))
  shape = (len(turns), 3, 3)
  return Cameras(np.asarray(pose), np.broadcast_to(view.intrinsics, shape))


def swing(
  degrees: float, num: int, *, there_and_back: bool = True
) -> Float[np.ndarray, "v"]:
  """Turns to either side; 360 is one steady turn instead.

  There and back is a pendulum that starts in the middle and can be shown in a
  loop; otherwise it goes evenly from one side to the other, both included.
  """
  phase = np.arange(num) / num
  if degrees == 360:
    return 360 * phase
  if there_and_back:
    return degrees * np.sin(2 * np.pi * phase)
  return np.linspace(-degrees, degrees, num)


def parse_expression(
  text: str, names: Sequence[str], mean: Float[np.ndarray, "e"]
) -> tuple[Float[np.ndarray, "e"], list[str]]:
  """Raw coefficients of "name=value,...", and notes on unusual ones.

  Args:
    text: to be read.
    names: of all coefficients.
    mean: of each, where those that are not named stay; the notes hold the mean
      of the others.

  Raises:
    InputError: a name is not known, or a value is no number.
  """
  raw = np.array(mean, np.float32)
  notes = []
  for part in filter(None, (part.strip() for part in text.split(","))):
    name, equals, number = (word.strip() for word in part.partition("="))
    if not equals:
      raise InputError(f"{part!r} has no value: write name=value,name=value.")
    if name not in names:
      close = difflib.get_close_matches(name, names, cutoff=0.4) or names
      raise InputError(
        f"there is no expression {name!r}: did you mean {', '.join(close)}?"
      )
    try:
      value = float(number)
    except ValueError:
      value = math.nan
    if not math.isfinite(value):
      raise InputError(f"{name}={number} is not a number: write {name}=0.8.")
    if not USUAL[0] <= value <= USUAL[1]:
      notes.append(f"{name}={value:g} is far from anything the run has seen.")
    place = names.index(name)
    notes.append(
      f"{name}={value:g}, in the training frames {mean[place]:.2f} on average."
    )
    raw[place] = value
  return raw, notes


class Viewer:
  """A trained implicit face and one person, with one compiled program.

  Attributes:
    space: of the expressions.
    generator: the network.
    identity: the person's coefficients.
    mean: the person's expression on average.
    prior: what the network began from, see `experiment.prior_of`.
  """

  prior = ""

  def __init__(
    self,
    generator: nnx.Module,
    space: FaceSpace,
    identity: Float[np.ndarray, "i"],
    mean: Float[np.ndarray, "e"],
    *,
    batch_size: int = 4,
  ):
    self.generator, self.space, self.mean = generator, space, mean
    self.identity = np.float32(identity)
    self._batch_size = batch_size
    graphdef, self._params = nnx.split(generator)

    # The params are an argument: as constants they would be compiled in.
    def styles(params, identity, expression):
      return nnx.merge(graphdef, params).map(identity, expression)

    def planes(params, ws):
      return nnx.merge(graphdef, params).planes(ws)

    def render(params, ws, vectors):
      network = nnx.merge(graphdef, params)
      out = network.synthesize(
        jnp.repeat(ws, len(vectors), 0), vectors, upsample=True
      )
      cameras = cameras_lib.from_vector(vectors)
      normals = normals_of_depth(out.depth, out.weight_sum, cameras)
      return Pictures(out.image, out.depth, out.weight_sum, normals)

    options = compiler_options.usual()
    self._map, self._planes, self._render = (
      jax.jit(function, compiler_options=options)
      for function in (styles, planes, render)
    )

  @classmethod
  def open(cls, model: str | pathlib.Path, person: int = 0) -> "Viewer":
    """Opens a stage 2 run, or the folder in which it is called triplane.

    Raises:
      InputError: there is none, or it knows no such person.
    """
    model = pathlib.Path(model)
    if place_of(model, "triplane").exists():
      model = place_of(model, "triplane")
    # Before the run is opened: that may load other networks first.
    stage = read_record(model)["stage"]
    if stage != "triplane":
      raise InputError(
        f"{model} is a run of stage {stage}: name the one of stage triplane, "
        "or the folder it is in."
      )
    run = open_run(model)
    if not 0 <= person < len(run.people):
      raise InputError(
        f"the people of {model} are numbered from 0 to {len(run.people) - 1}: "
        f"there is no --person={person}."
      )
    known = run.people[person]
    # Records of older runs have one mean for all.
    mean = known.get("expression_mean", run.space.expression_mean)
    who = np.float32(known["identity"]), np.float32(mean)
    viewer = cls(generator_of(run), run.space, *who)
    viewer.prior = prior_of(run.experiment.stage)
    return viewer

  def _styles(
    self, expression: Float[np.ndarray, "e"]
  ) -> Float[Array, "1 k s"]:
    known = self.space.standardise(np.float32(expression))
    return self._map(self._params, self.identity[None], known[None])

  def planes(
    self, expression: Float[np.ndarray, "e"]
  ) -> Float[Array, "1 3 h w c"]:
    """The feature planes at raw coefficients."""
    return self._planes(self._params, self._styles(expression))

  def render(
    self, expression: Float[np.ndarray, "e"], cameras: Cameras
  ) -> Pictures:
    """The face at raw coefficients, through each of the cameras."""
    ws = self._styles(expression)
    vectors = np.asarray(cameras_lib.to_vector(cameras))
    num, size = len(vectors), self._batch_size
    # One batch size is one compiled program; the filling is thrown away.
    vectors = np.concatenate([vectors, np.repeat(vectors[-1:], -num % size, 0)])
    parts = [
      jax.device_get(
        self._render(self._params, ws, vectors[start : start + size])
      )
      for start in range(0, len(vectors), size)
    ]
    return Pictures(
      *(np.concatenate(p)[:num] for p in zip(*parts, strict=True))
    )


def normals_of_depth(
  depth: Float[Array, "v r r"],
  weight_sum: Float[Array, "v r r"],
  cameras: Cameras,
) -> Float[Array, "v r r 3"]:
  """Which way the surface that the depths describe faces, in the head's frame.

  From the differences of neighbouring points; 0 where nothing is met.
  """
  # Not the density's gradient: at the expected depth of a soft volume, often
  # inside or behind its densest layer, that points anywhere.
  lines = rays.cast(cameras, depth.shape[-1])
  flat = depth.reshape(len(depth), -1, 1)
  points = rays.points_along(lines, flat).reshape(*depth.shape, 3)
  right = jnp.gradient(points, axis=2)
  down = jnp.gradient(points, axis=1)
  # Seen from the camera, down x right comes towards it.
  normal = jnp.cross(down, right)
  length = jnp.linalg.norm(normal, axis=-1, keepdims=True)
  met = (weight_sum[..., None] > SEEN) & (length > 0)
  return jnp.where(met, normal / jnp.where(met, length, 1.0), 0.0)


def share_met(seen: Pictures) -> float:
  """Share of the rays that end in matter."""
  return float((seen.weight_sum > SEEN).mean())


def to_pictures(
  seen: Pictures,
) -> dict[str, UInt8[np.ndarray, "v h h 3"]]:
  """Image, depth (near is bright) and normals as bytes, all of one size.

  Depths share one scale, between the nearest and the farthest matter (but for
  a hundredth of the rays each). Normals: red to the head's left, green up, blue
  ahead.
  """
  side = seen.image.shape[1]
  met = seen.weight_sum > SEEN
  near, far = (
    np.percentile(seen.depth[met], [1, 99]) if met.any() else (0.0, 1.0)
  )
  bright = np.clip((far - seen.depth) / max(far - near, 1e-6), 0, 1)
  # Matter is never quite black, so that it can be told from nothing.
  depth = np.where(met, 0.15 + 0.85 * bright, 0.0)[..., None]
  normals = np.where(met[..., None], 0.5 + 0.5 * seen.normals, 0.0)
  return {
    "image": _bytes(0.5 + 0.5 * seen.image),
    "depth": _enlarge(_bytes(np.repeat(depth, 3, -1)), side),
    "normals": _enlarge(_bytes(normals), side),
  }


def _bytes(values) -> UInt8[np.ndarray, "v h h 3"]:
  return np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)


def _enlarge(pictures, side) -> UInt8[np.ndarray, "v h h 3"]:
  # Nearest: what was not computed is not to be made up.
  return np.stack(
    [
      np.asarray(
        Image.fromarray(p).resize((side, side), Image.Resampling.NEAREST)
      )
      for p in pictures
    ]
  )


def save_film(path: pathlib.Path, seen: Pictures) -> None:
  """An mp4: image, depth and normals side by side."""
  frames = np.concatenate(list(to_pictures(seen).values()), axis=2)
  size = (frames.shape[2], frames.shape[1])
  rate = Fraction(FRAME_RATE)
  with video_writer.VideoWriter(path, size, rate, comment=COMMENT) as sink:
    for frame in frames:
      sink.write(frame)


def save_sheet(
  path: pathlib.Path, rows: dict[str, UInt8[np.ndarray, "v h h 3"]]
) -> None:
  """A picture file: one row for each name."""
  first = next(iter(rows.values()))
  side = max(256, first.shape[1])
  picture = plots.contact_sheet(rows, num_columns=len(first), side=side)
  with whole_file.written(path) as hidden:
    picture.save(hidden)


def save_arrays(path: pathlib.Path, seen: Pictures) -> None:
  """An .npz of the first view: image, depth, weight_sum, normals."""
  arrays = {name: value[0] for name, value in seen._asdict().items()}
  with whole_file.written(path) as hidden:
    np.savez_compressed(hidden, **arrays)
