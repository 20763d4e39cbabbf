"""Uploads: limited by size and by what their bytes are, under names of ours.

What a browser sends lies in a folder of its own until somebody takes it, and
is removed then, or when it is old.
"""

import contextlib
import os
import pathlib
import re
import shutil
import threading
import time

from pir_jax.types import InputError

_HEAD = 400  # Bytes that tell the kinds apart.
OLD = 3600.0  # Seconds after which what nobody took is removed.
# What the first bytes match, and the suffix that such a file gets.
_VIDEO = {
  ".mp4": rb".{4}ftyp",
  ".mkv": rb"\x1aE\xdf\xa3",  # Matroska, and its subset WebM.
  ".avi": rb"RIFF.{4}AVI ",
  ".ts": rb"G.{187}G",
}
_SOUND = {
  ".wav": rb"(RIFF|RF64|RIFX).{4}WAVE",
  ".flac": rb"fLaC",
  ".ogg": rb"OggS",
  ".mp3": rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa\xfb]",
  ".aac": rb"\xff[\xf0\xf1\xf8\xf9]",
  ".aiff": rb"FORM.{4}AIF[FC]",
}
KINDS = {
  "video": (_VIDEO, "a video (mp4, mov, webm, mkv, avi or ts)"),
  "speech": (
    {**_VIDEO, **_SOUND},
    "speech (wav, mp3, m4a, flac, ogg, aiff, aac or a video)",
  ),
}


def suffix_of(head: bytes, kind: str) -> str | None:
  """Returns the suffix of a file of a kind; None of any other file.

  Args:
    head: its first bytes.
    kind: one of KINDS.
  """
  for suffix, pattern in KINDS[kind][0].items():
    if re.match(pattern, head, re.DOTALL):
      return suffix
  return None


class Uploads:
  """The folder that a browser's files arrive in."""

  def __init__(self, folder: pathlib.Path, most_bytes: int):
    """Makes the folder, or removes what an earlier server left in it."""
    self.folder, self.most_bytes = folder.resolve(), most_bytes
    self.folder.mkdir(parents=True, exist_ok=True)
    self._lock = threading.Lock()
    self._taken: dict[pathlib.Path, pathlib.Path] = {}
    self.sweep(0.0)

  def take(
    self, upload: object, kind: str, target: pathlib.Path
  ) -> pathlib.Path:
    """Moves an upload to where it belongs.

    Args:
      upload: what the page sends: a dict with the `path` of the file.
      kind: one of KINDS.
      target: its new name, without a suffix.

    Returns:
      The new name, with the suffix of what its bytes are.

    Raises:
      InputError: it is nothing that was uploaded, too large, or not of this
        kind; the upload is gone then.
    """
    path = self._path(upload)
    with self._lock:
      # Two browsers that send the same file are shown the same upload.
      place = path if path.exists() else self._taken.get(path, path)
      try:
        return self._link(place, path.name, kind, target)
      finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
          path.parent.rmdir()
        self._forget_gone(path, target)

  def sweep(self, age: float = OLD) -> None:
    """Removes what is older than so many seconds."""
    for path in sorted(self.folder.rglob("*"), reverse=True):
      try:
        if path.is_dir() and not path.is_symlink():
          path.rmdir()
        elif time.time() - path.lstat().st_mtime >= age:
          path.unlink()
      except OSError:  # Not empty, or gone meanwhile.
        continue

  def _path(self, upload: object) -> pathlib.Path:
    """Returns the file of an upload, which lies in the folder."""
    name = upload.get("path") if isinstance(upload, dict) else None
    if not isinstance(name, str) or not name:
      raise InputError("No file was uploaded: choose or record one first.")
    path = pathlib.Path(os.path.normpath(name))
    # A link would lead elsewhere: the name itself is compared.
    if "\0" in name or path.parent.parent != self.folder:
      raise InputError("This is no file that was uploaded here: choose one.")
    return path

  def _link(self, place, name, kind, target) -> pathlib.Path:
    if place.is_symlink() or not place.is_file():
      raise InputError("The upload is no longer there: choose the file again.")
    if place.stat().st_size > self.most_bytes:
      limit = self.most_bytes >> 20
      raise InputError(f"{name} is larger than {limit} MB: cut it first.")
    with open(place, "rb") as file:
      suffix = suffix_of(file.read(_HEAD), kind)
    if suffix is None:
      raise InputError(
        f"{name} is not {KINDS[kind][1]}: convert it to one of these first."
      )
    target = target.with_name(target.name + suffix)
    try:
      os.link(place, target)
    except OSError:  # Not every file system has links.
      shutil.copyfile(place, target)
    return target

  def _forget_gone(self, path: pathlib.Path, target: pathlib.Path) -> None:
    self._taken = {k: v for k, v in self._taken.items() if v.exists()}
    for made in target.parent.glob(f"{target.name}.*"):
      self._taken[path] = made
