"""Trained networks as files to hand on: a person is a folder of them.

Each is a .safetensors file with what all its networks have learnt (see
`train_state.learnt`) and, in its header, the record of its run without what
only the machine of the training could know. config.json holds the files' hashes
and what a reader wants to know first. Nothing in them is executed.
"""

import copy
import json
import pathlib
import shutil
import uuid
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array

from pir_jax import assets
from pir_jax.types import InputError

SUFFIX = ".safetensors"
INDEX = "config.json"
STAGES = ("expression", "triplane", "inpainting")
_HEADER = "pir_jax"
# Of a record: what was learnt, from what kind of data, with which versions.
_KEPT = ("stage", "config", "seed", "space", "people", "versions", "code")
# Of a config: places on the machine of the training.
_PLACES = ("path", "speakers", "init_from", "triplane", "expression", "vgg19")
# What `init_from` calls the networks of many people that come with the package.
BASE = "base"
# Corrections of the fits of one clip's frames: of no use to another.
_NOT_EXPORTED = "refinement/"


def is_one(place: pathlib.Path) -> bool:
  """Whether a path names an exported network."""
  if place.suffix != SUFFIX or not place.is_file():
    return False
  try:
    return _HEADER in _header(place)
  except InputError:
    return False


def read_record(path: pathlib.Path) -> dict[str, Any]:
  """Reads the record of the run that a file was exported from.

  Raises:
    InputError: the file is missing, damaged, or is no export of ours.
  """
  header = _header(path)
  if _HEADER not in header:
    raise InputError(
      f"{path} holds no network of pir_jax: export one with `python -m "
      "pir_jax.export`."
    )
  return json.loads(header[_HEADER])


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads what the networks have learnt.

  Raises:
    InputError: the file is missing or damaged.
  """
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise InputError(f"{path} cannot be read: {error}") from error


def _header(path: pathlib.Path) -> Mapping[str, str]:
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return file.metadata() or {}
  except (OSError, safetensors.SafetensorError) as error:
    raise InputError(f"{path} cannot be read: {error}") from error


def check(folder: pathlib.Path) -> None:
  """Checks that the files of an exported person are those that were written.

  Raises:
    InputError: one is missing or has changed.
  """
  try:
    files = json.loads((folder / INDEX).read_text())["files"]
  except (OSError, ValueError, KeyError) as error:
    raise InputError(f"{folder / INDEX} cannot be read: {error}") from error
  for name, known in files.items():
    path = folder / pathlib.PurePath(name).name
    if not path.is_file() or assets.digest(path) != known["sha256"]:
      raise InputError(
        f"{path} is not the file that {INDEX} names: export or fetch it again."
      )


def write_network(
  path: pathlib.Path, record: dict[str, Any], arrays: Mapping[str, Array]
) -> dict[str, Any]:
  """Writes one stage, and returns its entry in config.json.

  Args:
    path: of the file to write.
    record: of the run, with its `step`.
    arrays: see `train_state.learnt`.
  """
  kept = {
    name: np.ascontiguousarray(jax.device_get(array))
    for name, array in arrays.items()
    if not name.startswith(_NOT_EXPORTED)
  }
  header = {_HEADER: json.dumps(portable(record))}
  safetensors.numpy.save_file(kept, path, header)
  return {
    "sha256": assets.digest(path),
    "step": record["step"],
    "parameters": sum(array.size for array in kept.values()),
  }


def write_person(
  folder: pathlib.Path,
  records: Mapping[str, dict[str, Any]],
  arrays: Mapping[str, Mapping[str, Array]],
  card: str,
  card_name: str = "README.md",
) -> None:
  """Writes a person's networks, whole or not at all.

  Args:
    folder: to make.
    records: of each stage's run.
    arrays: of each stage, see `train_state.learnt`.
    card: text of the model card.
    card_name: its file.

  Raises:
    InputError: the folder is there already.
  """
  if folder.exists():
    raise InputError(f"{folder} is there already: choose another --output.")
  part = folder.parent / f".{uuid.uuid4().hex}.part"
  part.mkdir(parents=True)
  try:
    files = {}
    for stage in STAGES:
      path = part / f"{stage}{SUFFIX}"
      files[path.name] = write_network(path, records[stage], arrays[stage])
    index = {
      "files": files,
      "people": [person["source"] for person in records["triplane"]["people"]],
      "resolution": records["inpainting"]["config"]["data"]["resolution"],
      "space": records["triplane"]["space"],
      "versions": records["inpainting"]["versions"],
    }
    (part / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (part / card_name).write_text(card)
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a run's record without the places of its machine."""
  kept = {name: record[name] for name in _KEPT if name in record}
  kept |= {"step": record["step"], "triplane_step": record["triplane_step"]}
  if "encoder" in record:
    kept["encoder"] = record["encoder"]
  kept = copy.deepcopy(kept)
  for part in (kept["config"]["stage"], kept["config"]["data"]):
    part |= {
      name: "" for name in _PLACES if name in part and part[name] != BASE
    }
  if "encoder" in kept:
    kept["config"]["stage"]["encoder_path"] = ""
  return kept
