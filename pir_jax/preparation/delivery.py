"""Writes to folders that are not on this machine: gs://, s3:// and the like.

Nothing there is atomic but the single file. So a clip's manifest.json goes
last and is the mark that the clip is whole: a folder without one is rubbish of
a broken copy. To replace a clip, its manifest.json is deleted first.
"""

import functools
import json
import pathlib
from typing import Any

from pir_jax.data import manifest
from pir_jax.types import InputError


def is_remote(place: str | pathlib.Path) -> bool:
  """Checks that a place is an address, not a folder of this machine."""
  return "://" in str(place)


@functools.cache
def _system(place: str) -> tuple[Any, str]:
  """Returns the file system of an address, and the path in it."""
  try:
    import fsspec
  except ImportError as error:
    raise InputError(
      f"{place} needs fsspec: pip install 'pir_jax[remote]'."
    ) from error
  try:
    system, path = fsspec.core.url_to_fs(place)
  except (ImportError, ValueError) as error:
    # fsspec's own sentence names the package, such as gcsfs, to install.
    raise InputError(f"{place} cannot be written: {error}.") from error
  # Listings are not kept: other machines write there too.
  system.use_listings_cache = False
  system.invalidate_cache()
  return system, path.rstrip("/")


def send(folder: pathlib.Path, place: str) -> None:
  """Copies a clip, or replaces the one that is there; manifest.json last."""
  system, path = _system(place)
  remove(place)
  system.makedirs(path, exist_ok=True)
  files = sorted(file for file in folder.rglob("*") if file.is_file())
  files.sort(key=lambda file: file == folder / manifest.FILE_NAME)
  for file in files:
    target = f"{path}/{file.relative_to(folder).as_posix()}"
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    system.put_file(str(file), target)


def remove(place: str) -> None:
  """Deletes a clip or what is left of one, its manifest.json first."""
  system, path = _system(place)
  system.invalidate_cache()
  mark = f"{path}/{manifest.FILE_NAME}"
  if system.exists(mark):
    system.rm_file(mark)
  if system.exists(path):
    system.rm(path, recursive=True)


def read_manifests(place: str) -> dict[str, dict]:
  """Reads the manifests of a data set's whole clips, by the clip's name."""
  system, path = _system(place)
  system.invalidate_cache()
  manifests = {}
  if not system.exists(path):
    return manifests
  for entry in sorted(system.ls(path, detail=False)):
    mark = f"{entry.rstrip('/')}/{manifest.FILE_NAME}"
    if system.exists(mark):
      name = entry.rstrip("/").rpartition("/")[2]
      manifests[name] = json.loads(system.cat_file(mark))
  return manifests


def fetch(place: str, name: str, folder: pathlib.Path) -> None:
  """Copies one file of a place into a folder, if it is there."""
  system, path = _system(place)
  if system.exists(f"{path}/{name}"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(system.cat_file(f"{path}/{name}"))


def put(place: str, name: str, content: bytes | None) -> None:
  """Writes one small file; None deletes it."""
  system, path = _system(place)
  target = f"{path}/{name}"
  if content is not None:
    system.makedirs(path, exist_ok=True)
    system.pipe_file(target, content)
  elif system.exists(target):
    system.rm_file(target)
