"""A person's networks as programs and arrays, kept so that they start at once.

Opening the runs of the networks imports, declares and traces all that was
trained; none of it is needed to run them again. What is kept holds for one
state of the runs, one version of this package and of JAX, and one kind of
machine. Nothing of it is executed but by XLA.

b frames, e expression and i identity coefficients.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
import safetensors.numpy

import pir_jax
from pir_jax import assets
from pir_jax.inference.person import KnownPerson, Networks
from pir_jax.runtime import (
  checkpoint_integrity,
  compilation_cache,
  kept,
  programs,
)
from pir_jax.stages.conditioning import Conditions
from pir_jax.stages.speaker import HOP, LIVE_STEP, LIVE_WINDOW, Speaker
from pir_jax.types import Cameras, ExpressionStats, FaceSpace

BATCHES = (LIVE_STEP, 4)  # Frames at once: of live speech, of all of it.
_ARRAYS = "arrays.safetensors"
_ABOUT = "about.json"
_STAGES = ("expression", "triplane", "inpainting")


def root() -> pathlib.Path | None:
  """Returns the folder with all of them; None where nothing is to be kept."""
  return assets.kept_directory("networks")


def size() -> tuple[int, int]:
  """Returns how many are kept, and their bytes."""
  return kept.size(root())


def clear() -> None:
  """Deletes them."""
  kept.clear(root())


def place_of(model: pathlib.Path) -> pathlib.Path | None:
  """Names what is kept of a person by all that it depends on."""
  folder = root()
  if folder is None:
    return None
  digest = hashlib.sha256()
  for part in (_code(), jax.__version__, compilation_cache.machine()):
    digest.update(part.encode())
  digest.update(jax.devices()[0].device_kind.encode())
  for path in sorted(_files(model)):
    about = path.stat()
    name = path.relative_to(model)
    digest.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
  return folder / digest.hexdigest()[:32]


def _files(model: pathlib.Path):
  """Yields the files whose change is a change of the networks."""
  for name in _STAGES:
    yield from model.glob(f"{name}.safetensors")
    yield from (path for path in (model / name).rglob("*") if path.is_file())


def digest(model: pathlib.Path) -> str:
  """Returns a sha256 of a person's networks.

  Of the files that were exported, or of the lists of hashes that the newest
  checkpoints of the runs hold.
  """
  result = hashlib.sha256()
  for name in _STAGES:
    paths = [model / f"{name}.safetensors"]
    if not paths[0].exists():
      step = max(checkpoint_integrity.steps(model / name), default=0)
      files = checkpoint_integrity.FILE_LIST
      paths = [model / name / "run.json"]
      paths.append(model / name / "checkpoints" / str(step) / files)
    for path in paths:
      content = assets.digest(path) if path.exists() else "missing"
      result.update(f"{path.relative_to(model)}\0{content}\0".encode())
  return result.hexdigest()


@functools.cache
def _code() -> str:
  digest = hashlib.sha256()
  folder = pathlib.Path(pir_jax.__file__).parent
  for path in sorted(folder.rglob("*.py")):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def write(
  place: pathlib.Path | None,
  expression: Any,
  inpainting: Any,
  networks: Networks,
  people: list[dict[str, Any]],
) -> None:
  """Keeps a person's networks; not where they need what is not in their files.

  Args:
    place: from `place_of`.
    expression: the opened run.
    inpainting: likewise.
    networks: made of them.
    people: records of whom they were trained on.
  """
  config = expression.experiment.stage
  elsewhere = (config.encoder_path, inpainting.experiment.stage.triplane)
  if place is None or not config.model.context or any(elsewhere):
    return
  kept.write(
    place,
    lambda folder: _write(folder, expression, inpainting, networks, people),
  )


def _write(folder, expression, inpainting, networks, people) -> None:
  arrays = {}
  for name, (leaves, functions) in {
    "speech": _of_speech(expression, networks.speaker),
    "faces": _of_faces(inpainting, networks),
  }.items():
    arrays |= {f"{name}/{i:05d}": np.asarray(x) for i, x in enumerate(leaves)}
    for file, (function, *shapes) in functions.items():
      programs.write(folder / file, function, leaves, *shapes)
  space, speaker = networks.space, networks.speaker
  arrays["space/mean"] = np.float32(space.expression_mean)
  arrays["space/scale"] = np.float32(space.expression_scale)
  (folder / _ARRAYS).write_bytes(
    safetensors.numpy.save(
      {name: np.array(x, order="C") for name, x in arrays.items()}
    )
  )
  about = {
    "people": people,
    "identity_size": space.identity_size,
    "expression_names": list(space.expression_names),
    "face_model": space.face_model,
    "resolution": networks.resolution,
    "prior": networks.prior,
    "shifts": dict(networks.shifts),
    "window": speaker.window,
    "margin": speaker.margin,
    "context": speaker.context,
    "relative": speaker.relative,
    "files": {path.name: assets.digest(path) for path in folder.iterdir()},
  }
  (folder / _ABOUT).write_text(json.dumps(about))


def _of_speech(run, speaker: Speaker):
  """Returns arrays, and functions of them with the shapes of the rest."""
  stage = run.stage
  state = run.state._replace(
    nets={
      name: net._replace(
        params=run.state.ema.get(name, net.params), opt_state=()
      )
      for name, net in run.state.nets.items()
    },
    ema={},
  )
  leaves, tree = jax.tree.flatten((state, stage.frozen))
  space = run.space
  identity = np.zeros((1, space.identity_size), np.float32)
  carry = jax.eval_shape(
    lambda *args: stage.start_phase(*args, num_frames=None), state, identity
  )
  carry_leaves, carry_tree = jax.tree.flatten(carry)
  stats = np.zeros(space.expression_size, np.float32)

  def encode(leaves, sound, lengths):
    return stage.encode_phase(*jax.tree.unflatten(tree, leaves), sound, lengths)

  def start(leaves, identity):
    state, _ = jax.tree.unflatten(tree, leaves)
    return jax.tree.leaves(stage.start_phase(state, identity, num_frames=None))

  def extend(leaves, carry, features, mean, std):
    state, _ = jax.tree.unflatten(tree, leaves)
    who = ExpressionStats(mean, std) if speaker.relative else None
    carry = jax.tree.unflatten(carry_tree, carry)
    carry, part = stage.extend_phase(state, carry, features, who)
    return jax.tree.leaves(carry), part

  functions = {"start": (start, identity)}
  for window in (speaker.window, LIVE_WINDOW):
    sound = np.zeros((1, window * HOP), np.float32)
    lengths = np.zeros(1, np.int32)
    functions[f"encode-{window}"] = (encode, sound, lengths)
  width = jax.eval_shape(encode, leaves, sound, lengths).shape[-1]
  for step in (speaker.stride, LIVE_STEP):
    features = np.zeros((1, step, width), np.float32)
    args = (carry_leaves, features, stats, stats)
    functions[f"extend-{step}"] = (extend, *args)
  return leaves, functions


def _of_faces(run, networks: Networks):
  """Likewise."""
  stage, side, space = run.stage, networks.resolution, networks.space
  state = run.state._replace(
    nets={
      "inpainting": run.state.nets["inpainting"]._replace(
        params=(), opt_state=()
      )
    }
  )
  frozen = {"generator": stage.frozen["generator"]}
  leaves, tree = jax.tree.flatten((state, frozen))

  def inpaint(leaves, image, mask, *conditions):
    state, frozen = jax.tree.unflatten(tree, leaves)
    features = stage.features_phase(state, frozen, _conditions(*conditions))
    return stage.inpaint_phase(state, image, mask, features)

  functions = {}
  for count in BATCHES:
    shapes = (
      *((side, side, 3), (side, side, 1)),
      *((space.identity_size,), (space.expression_size,)),
      *((4, 4), (3, 3)),
    )
    args = [np.zeros((count, *shape), np.float32) for shape in shapes]
    functions[f"inpaint-{count}"] = (inpaint, *args)
  return leaves, functions


def _conditions(identity, expression, pose, intrinsics) -> Conditions:
  return Conditions(identity, expression, Cameras(pose, intrinsics))


def read(
  place: pathlib.Path | None, otherwise: Callable[[], Networks]
) -> tuple[Networks, list[KnownPerson]] | None:
  """Returns the networks and whom they were trained on; None without any.

  Args:
    place: from `place_of`.
    otherwise: opens the runs, for what is not kept: batches of other sizes,
      and the implicit face alone.
  """
  if not kept.use(place):
    return None
  try:
    about = json.loads((place / _ABOUT).read_text())
    for name, digest in about["files"].items():
      if assets.digest(place / name) != digest:
        raise ValueError(f"{name} has changed")
    arrays = safetensors.numpy.load_file(place / _ARRAYS)
    files = {
      name: programs.Program(place / name)
      for name in about["files"]
      if name != _ARRAYS
    }
    space = FaceSpace(
      about["identity_size"],
      tuple(about["expression_names"]),
      arrays.pop("space/mean"),
      arrays.pop("space/scale"),
      about["face_model"],
    )
    speech, faces = (
      [arrays[n] for n in sorted(arrays) if n.startswith(f"{kind}/")]
      for kind in ("speech", "faces")
    )
    people = [KnownPerson.from_record(person) for person in about["people"]]
    options = {
      name: about[name] for name in ("window", "margin", "context", "relative")
    }
  except (KeyError, OSError, ValueError, safetensors.SafetensorError):
    kept.drop(place)
    return None
  whole = functools.cache(otherwise)
  arrays = jax.device_put((speech, faces))
  made = _Ready(files, *arrays, whole, 0 * space.expression_mean)
  networks = Networks(
    Speaker(made.encode, made.start, made.extend, **options),
    made.inpaint,
    lambda *args: whole().render(*args),
    space,
    about["resolution"],
    about["prior"],
    about["shifts"],
  )
  made.compile_ahead(networks.speaker)
  return networks, people


@dataclasses.dataclass
class _Ready:
  """Programs by their names, and the arrays of both kinds of networks."""

  files: dict[str, programs.Program]
  speech: list[Any]
  faces: list[Any]
  whole: Callable[[], Networks]
  zeros: np.ndarray

  def compile_ahead(self, speaker: Speaker) -> None:
    """Compiles what comes first, beside whatever comes next."""
    names = ("start", f"encode-{speaker.window}", f"extend-{speaker.stride}")
    names += (f"inpaint-{BATCHES[-1]}",)
    pool = futures.ThreadPoolExecutor(len(names))
    for name in names:
      pool.submit(self.files[name].compile)
    pool.shutdown(wait=False)

  def encode(self, sound, lengths):
    window = sound.shape[1] // HOP
    return self.files[f"encode-{window}"](self.speech, sound, lengths)

  def start(self, identity, *, num_frames=None):
    del num_frames  # What remembers all frames is not kept.
    return self.files["start"](self.speech, np.float32(identity))

  def extend(self, carry, features, stats):
    program = self.files[f"extend-{features.shape[1]}"]
    stats = (self.zeros, self.zeros) if stats is None else stats
    return program(self.speech, carry, features, *map(np.float32, stats))

  def inpaint(self, image, mask, conditions: Conditions):
    program = self.files.get(f"inpaint-{len(image)}")
    if program is None:
      return self.whole().inpaint(image, mask, conditions)
    identity, expression, cameras = conditions
    args = (image, mask, identity, expression, *cameras)
    return program(self.faces, *map(np.float32, args))
