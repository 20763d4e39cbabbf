"""Writes a data set of many clips: a folder with a folder for each clip.

It lies on this machine or at an address (gs://, s3://, ...). Beside the clips
are manifest.json and report.html, made of the clips alone, and failed.json
while there are videos that could not be prepared.
"""

import fcntl
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from typing import NamedTuple

from pir_jax.data import manifest, records
from pir_jax.preparation import delivery, pipeline, quality_report
from pir_jax.types import InputError

FAILED = quality_report.FAILED
REPORT = quality_report.FILE_NAME
_PART = re.compile(r"\.[0-9a-f]{32}" + re.escape(pipeline.PART))


class Known(NamedTuple):
  """A finished clip of a data set.

  Attributes:
    key: of the preparation that made it; "" if by other means.
    sha256: of its video.
  """

  key: str
  sha256: str


class Collection:
  """A data set; use as a context manager, which keeps others from writing."""

  def __init__(self, place: str):
    """Names a data set, to be made or already there.

    Args:
      place: a folder or an address.

    Raises:
      InputError: the folder is a single clip, or a file.
    """
    self.remote = delivery.is_remote(place)
    self.place = place.rstrip("/") if self.remote else os.path.abspath(place)
    self.folder = None if self.remote else pathlib.Path(self.place)
    self._lock = None
    if self.folder is not None:
      if self.folder.exists() and not self.folder.is_dir():
        raise InputError(f"{place} is a file: name a folder for the data set.")
      if (self.folder / records.FRAMES).exists():
        raise InputError(
          f"{place} is one prepared clip: name another folder for many."
        )

  def __enter__(self) -> "Collection":
    if self.folder is not None:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._lock = os.open(self.folder, os.O_RDONLY)
      try:
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        os.close(self._lock)
        raise InputError(
          f"{self.folder} is being written by another preparation: wait for it"
          " or stop it."
        ) from error
      except OSError:
        pass  # Some network file systems have no locks.
      self._remove_parts()
    return self

  def __exit__(self, kind, value, traceback) -> None:
    if self.folder is not None:
      self._remove_parts()
      os.close(self._lock)
      if not any(self.folder.iterdir()):
        self.folder.rmdir()

  def _remove_parts(self) -> None:
    """Removes what killed processes left behind."""
    for path in self.folder.iterdir():
      if not _PART.fullmatch(path.name):
        continue
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)

  def clip(self, name: str) -> str:
    """Returns the place of a clip."""
    return f"{self.place}/{name}"

  def clips(self) -> dict[str, Known]:
    """Returns the whole clips of the data set, by name."""
    if self.folder is None:
      manifests = delivery.read_manifests(self.place)
    else:
      manifests = {
        path.parent.name: _read(path)
        for path in sorted(self.folder.glob(f"*/{manifest.FILE_NAME}"))
        if (path.parent / records.FRAMES).is_file()
      }
    return {
      name: Known(values.get("preparation", ""), values.get("sha256", ""))
      for name, values in manifests.items()
    }

  def is_taken(self, name: str) -> bool:
    """Checks whether something that is no clip has a clip's name."""
    return (
      self.folder is not None
      and (self.folder / name).exists()
      and not (self.folder / name / records.FRAMES).is_file()
    )

  def adopt(self, old: str, new: str, source: str) -> None:
    """Renames a clip whose video was renamed. Only on this machine."""
    made = manifest.load_manifest(self.folder / old)
    made.source = source
    part = self.folder / old / f".{manifest.FILE_NAME}"
    part.mkdir(exist_ok=True)
    made.save(part)
    (part / manifest.FILE_NAME).replace(self.folder / old / manifest.FILE_NAME)
    part.rmdir()
    (self.folder / old).rename(self.folder / new)

  def failures(self) -> list[dict]:
    """Reads what an earlier run could not prepare."""
    if self.folder is not None:
      path = self.folder / FAILED
      return _read(path).get("clips", []) if path.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
      delivery.fetch(self.place, FAILED, pathlib.Path(folder))
      path = pathlib.Path(folder, FAILED)
      return _read(path).get("clips", []) if path.is_file() else []

  def note_failures(self, failures: Iterable[dict]) -> None:
    """Writes failed.json, or removes it where nothing failed."""
    clips = sorted(failures, key=lambda each: (each["name"], each["video"]))
    content = json.dumps({"clips": clips}, indent=2) + "\n" if clips else None
    self._put(FAILED, content and content.encode())

  def describe(self) -> None:
    """Writes manifest.json and report.html of the whole data set."""
    if self.folder is not None:
      quality_report.write(self.folder)
      return
    with tempfile.TemporaryDirectory() as folder:
      folder = pathlib.Path(folder)
      for name in self.clips():
        for file in (manifest.FILE_NAME, quality_report.THUMBNAILS):
          delivery.fetch(self.place, f"{name}/{file}", folder)
      delivery.fetch(self.place, FAILED, folder)
      quality_report.write(folder)
      for file in (REPORT, manifest.FILE_NAME):
        self._put(file, (folder / file).read_bytes())

  def _put(self, name: str, content: bytes | None) -> None:
    if self.folder is None:
      delivery.put(self.place, name, content)
    elif content is None:
      (self.folder / name).unlink(missing_ok=True)
    else:
      part = self.folder / f".{uuid.uuid4().hex}{pipeline.PART}"
      part.write_bytes(content)
      part.replace(self.folder / name)


def _read(path: pathlib.Path) -> dict:
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except ValueError:
    return {}  # Not ours any more: prepared again.
  return values if isinstance(values, dict) else {}
