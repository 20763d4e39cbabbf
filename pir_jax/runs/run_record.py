"""What a run is made from: config, code, data, machine; and may it go on so?

Restart order: this run, else another one that was named (`adopt`), else the
published weights its stage starts from, else from scratch.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from pir_jax.data import manifest
from pir_jax.runs.experiment import Experiment, experiment_of, name_of
from pir_jax.runs.run import check_generator
from pir_jax.runtime import checkpoint, config_io
from pir_jax.types import FaceSpace, InputError

_LIBRARIES = (
  *("pir_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
  *("grain", "numpy"),
)
# Bytes read at either end of a file of data; whole ones may take hours.
_END = 2**16
# How long, where, and how the memory is shared out. Most of it changes only
# roundings; a rate that falls follows the new length, and parts of a batch draw
# for themselves.
_FREE = (
  *("loop", "sharding", "data.path", "stage.remat", "stage.accumulate"),
  "stage.model.renderer.remat",
)


def check(
  workdir: pathlib.Path,
  experiment: Experiment,
  space: FaceSpace,
  people: list[dict[str, Any]],
) -> None:
  """A run that is there must be gone on with as it began; else nothing is said.

  Cheap: to be called before anything is compiled or written.

  Args:
    workdir: of the run.
    experiment: what it is to run.
    space: coefficients of its data.
    people: in its data, see `people`.

  Raises:
    InputError: the directory holds a run of something else; every field of the
      config that differs and matters is named with its old and new value.
  """
  if (workdir / "run.json").exists():
    _compare(workdir, experiment, _record(experiment, space, people))


def _compare(
  workdir: pathlib.Path, experiment: Experiment, new: dict[str, Any]
) -> dict[str, Any]:
  """The record that is there, if a run with the record `new` may go on."""
  old = checkpoint.read_record(workdir)
  if old["stage"] != new["stage"]:
    raise InputError(
      f"{workdir} holds a run of stage {old['stage']}, not {new['stage']}: "
      "choose another --workdir or delete it."
    )
  # Through the classes: a field that is newer than the run has its default.
  was = config_io.to_dict(experiment_of(old))
  if found := changes(was, config_io.to_dict(experiment)):
    raise InputError(
      f"{workdir} holds a run of another config ({'; '.join(found)}): give it "
      "the old values, or choose another --workdir (--resume_from takes over "
      "what this one has learnt)."
    )
  if any(old[key] != new[key] for key in ("space", "people")) or (
    "data" in old and changed_clips(old["data"], new["data"])
  ):
    names = changed_clips(old.get("data", []), new["data"])
    raise InputError(
      f"{workdir} holds a run on other data than this ({', '.join(names)}): "
      "choose another --workdir or delete it."
    )
  return old


def write(
  workdir: pathlib.Path,
  experiment: Experiment,
  space: FaceSpace,
  people: list[dict[str, Any]],
  stage: Any,
) -> None:
  """Writes run.json, if this may go on with what is there.

  Args:
    workdir: see `check`, as for the next three.
    experiment: what it runs.
    space: coefficients of its data.
    people: in its data.
    stage: that is trained.

  Raises:
    InputError: see `check`; or the tri-plane run below was trained on.
  """
  record = _record(experiment, space, people)
  record["triplane_step"] = getattr(stage, "triplane_step", None)
  if (workdir / "run.json").exists():
    old = _compare(workdir, experiment, record)
    check_generator(workdir, old, stage)
  if jax.process_index() == 0:
    checkpoint.write_record(workdir, record)


def adopt(
  workdir: pathlib.Path, source: pathlib.Path, space: FaceSpace, stage: Any
) -> None:
  """Begins a run with the state, step and place in the data of another one.

  Its config may differ, in the learning rate say, as long as the arrays have
  the same shapes. A run that has begun is left as it is.

  Args:
    workdir: of the run to begin.
    source: the other run, which stays as it is.
    space: coefficients of the data.
    stage: that is trained.

  Raises:
    InputError: the other run is of another stage, of other coefficients or of
      other shapes, or has no whole checkpoint.
  """
  old = checkpoint.read_record(source)
  if old["stage"] != stage.name:
    raise InputError(
      f"--resume_from={source} is a run of stage {old['stage']}, not "
      f"{stage.name}: name another one."
    )
  if old["space"] != _space(space):
    raise InputError(
      f"--resume_from={source} was trained on data whose coefficients are "
      "others, or are scaled otherwise: train from scratch on this data."
    )
  check_generator(source, old, stage)
  checkpoint.adopt(workdir, source, stage.abstract_state())


def _record(
  experiment: Experiment, space: FaceSpace, people: list[dict[str, Any]]
) -> dict[str, Any]:
  record = {
    "stage": name_of(experiment),
    "config": config_io.to_dict(experiment),
    "seed": experiment.seed,
    "space": _space(space),
    "people": people,
    "data": data(experiment.data.paths),
    "versions": versions(),
    "code": code(),
    "machine": machine(),
    "command": sys.argv,
  }
  # Through JSON at once, so that it compares with what is read back.
  return json.loads(json.dumps(record))


def _space(space: FaceSpace) -> dict[str, Any]:
  return {
    "identity_size": space.identity_size,
    "expression_names": list(space.expression_names),
    "expression_mean": np.asarray(space.expression_mean).tolist(),
    "expression_scale": np.asarray(space.expression_scale).tolist(),
    "face_model": space.face_model,
  }


def people(paths: manifest.Paths) -> list[dict[str, Any]]:
  """Source, sha256, identity, masks and face model of each clip."""
  kept = ("source", "sha256", "identity", "masks", "face_model")
  return [
    {name: getattr(made, name) for name in kept}
    for made in map(manifest.load_manifest, manifest.as_paths(paths))
  ]


def versions() -> dict[str, str]:
  """Of this package, where it is installed, and of what it stands on."""
  found = {}
  for name in _LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "not installed"
  return found


def code() -> str:
  """The sha256 of this package's own source files, names included."""
  root = pathlib.Path(__file__).parents[1]
  digest = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(str(path.relative_to(root)).encode() + b"\0")
    digest.update(path.read_bytes() + b"\0")
  return digest.hexdigest()


def machine() -> dict[str, Any]:
  """The devices in sight, of all processes."""
  devices = jax.devices()
  return {
    "device_kind": devices[0].device_kind,
    "num_devices": len(devices),
    "num_processes": jax.process_count(),
  }


def data(paths: manifest.Paths) -> list[dict[str, str]]:
  """Hashes by which the data of a run can be told, one record a clip.

  `manifest` is the sha256 of the clip's manifest; `holds` that of the names and
  sizes of its files and of both ends of each.
  """
  return [_clip(folder) for folder in manifest.as_paths(paths)]


def _clip(folder: pathlib.Path) -> dict[str, str]:
  digest = hashlib.sha256()
  for path in sorted(path for path in folder.iterdir() if path.is_file()):
    size = path.stat().st_size
    digest.update(f"{path.name}\0{size}\0".encode())
    with path.open("rb") as file:
      digest.update(file.read(_END))
      file.seek(max(_END, size - _END))
      digest.update(file.read(_END))
  text = (folder / manifest.FILE_NAME).read_bytes()
  return {
    "name": folder.name,
    "manifest": hashlib.sha256(text).hexdigest(),
    "holds": digest.hexdigest(),
  }


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """The fields that a run going on must share with what it was, one by one.

  Args:
    old: config of the run, as `configs.to_dict` gives it.
    new: config that it is to go on with.

  Returns:
    "path.of.field: old -> new" of each that matters and differs.
  """
  before, after = dict(_leaves(old)), dict(_leaves(new))
  return [
    f"{path}: {before.get(path, 'none')} -> {after.get(path, 'none')}"
    for path in {**before, **after}
    if before.get(path) != after.get(path) and not _is_free(path)
  ]


def changed_clips(
  old: list[dict[str, str]], new: list[dict[str, str]]
) -> list[str]:
  """Names of the clips that are not what they were when the run began."""
  if len(old) != len(new):
    return [f"{len(old)} clips -> {len(new)}"]
  hashes = ("manifest", "holds")
  return [
    after["name"]
    for before, after in zip(old, new, strict=True)
    if any(before[key] != after[key] for key in hashes)
  ]


def _is_free(path: str) -> bool:
  return any(path == free or path.startswith(f"{free}.") for free in _FREE)


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple]:
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _leaves(value, f"{path}{name}.")
    else:
      # A tuple comes back from JSON as a list.
      value = list(value) if isinstance(value, tuple) else value
      yield f"{path}{name}", value
