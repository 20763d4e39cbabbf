"""Records what a run is made from, and checks that it is resumed with the same.

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

from pir_jax.data.dataset import Dataset
from pir_jax.runs.experiment import Experiment, experiment_of, name_of
from pir_jax.runs.run import check_generator, has_begun
from pir_jax.runtime import checkpoint, config_io
from pir_jax.types import FaceSpace, InputError

_LIBRARIES = (
  *("pir_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
  *("grain", "numpy"),
)
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
  data: Dataset,
  space: FaceSpace,
) -> None:
  """Checks that a run, where there is one, is resumed as it began.

  Cheap: to be called before anything is compiled or written.

  Args:
    workdir: of the run.
    experiment: what it is to run.
    data: what it is to train on.
    space: that its networks know.

  Raises:
    InputError: the directory holds a run of something else; every field of the
      config that differs and matters is named with its old and new value.
  """
  if has_begun(workdir):
    _compare(workdir, experiment, _record(experiment, data, space))


def _compare(
  workdir: pathlib.Path, experiment: Experiment, new: dict[str, Any]
) -> dict[str, Any]:
  """Returns the record of the run, if one with the record `new` may resume."""
  old = checkpoint.read_record(workdir)
  if old["stage"] != new["stage"]:
    raise InputError(
      f"{workdir} holds a run of stage {old['stage']}, not {new['stage']}: "
      "choose another --workdir or delete it."
    )
  # Through the classes: a field that is newer than the run has its default.
  was = config_io.to_dict(experiment_of(old))
  if changed := changes(was, config_io.to_dict(experiment)):
    raise InputError(
      f"{workdir} holds a run of another config ({'; '.join(changed)}): use "
      "the old values, or choose another --workdir (--resume_from takes over "
      "what this one has learnt)."
    )
  people = [[_without_look(p) for p in r["people"]] for r in (old, new)]
  if (
    old["space"] != new["space"]
    or people[0] != people[1]
    or ("data" in old and changed_clips(old["data"], new["data"]))
  ):
    names = changed_clips(old.get("data", []), new["data"])
    raise InputError(
      f"{workdir} holds a run on other data than this ({', '.join(names)}): "
      "choose another --workdir or delete it."
    )
  return old


def _without_look(person: dict[str, Any]) -> dict[str, Any]:
  """Runs that began before looks were kept go on."""
  return {name: value for name, value in person.items() if name != "look"}


def write(
  workdir: pathlib.Path,
  experiment: Experiment,
  data: Dataset,
  stage: Any,
) -> None:
  """Writes run.json, if the run may go on with what is there.

  Args:
    workdir: of the run.
    experiment: what it runs.
    data: what it trains on.
    stage: that is trained.

  Raises:
    InputError: see `check`; or the tri-plane run below was trained on.
  """
  record = _record(experiment, data, stage.space)
  record["triplane_step"] = getattr(stage, "triplane_step", None)
  if has_begun(workdir):
    old = _compare(workdir, experiment, record)
    check_generator(workdir, old, stage)
  if jax.process_index() == 0:
    checkpoint.write_record(workdir, record)


def adopt(workdir: pathlib.Path, source: pathlib.Path, stage: Any) -> None:
  """Begins a run with the state, step and place in the data of another one.

  Its config may differ, in the learning rate say, as long as the arrays have
  the same shapes. A run that has begun is left as it is.

  Args:
    workdir: of the run to begin.
    source: the other run, which stays as it is.
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
  if old["space"] != _space(stage.space):
    raise InputError(
      f"--resume_from={source} renders with a stage 2 that knows another face "
      "space: name a run made with this one."
    )
  check_generator(source, old, stage)
  checkpoint.adopt(workdir, source, stage.abstract_state())


def _record(
  experiment: Experiment, data: Dataset, space: FaceSpace
) -> dict[str, Any]:
  record = {
    "stage": name_of(experiment),
    "config": config_io.to_dict(experiment),
    "seed": experiment.seed,
    "space": _space(space),
    "people": data.people,
    "data": data.digest,
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


def versions() -> dict[str, str]:
  """Returns the versions of this package and of what it stands on."""
  result = {}
  for name in _LIBRARIES:
    try:
      result[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      result[name] = "not installed"
  return result


def code() -> str:
  """Returns the sha256 of this package's own source files, with their names."""
  root = pathlib.Path(__file__).parents[1]
  digest = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(str(path.relative_to(root)).encode() + b"\0")
    digest.update(path.read_bytes() + b"\0")
  return digest.hexdigest()


def machine() -> dict[str, Any]:
  """Describes the devices of all processes."""
  devices = jax.devices()
  return {
    "device_kind": devices[0].device_kind,
    "num_devices": len(devices),
    "num_processes": jax.process_count(),
  }


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """Lists the fields that must not change when a run resumes, but do.

  Args:
    old: config of the run, from `config_io.to_dict`.
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
  """Lists the clips that are not what they were when the run began."""
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
