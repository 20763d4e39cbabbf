"""The seal of a folder: a list of its files, with which it can be proved whole.

Written last, so that what has a seal was complete; a file that was cut, lost or
changed since no longer agrees with it.
"""

import hashlib
import json
import pathlib

FILE_NAME = "files.json"


def write(folder: pathlib.Path) -> None:
  """Lists every file in `folder` with its size and sha256."""
  files = {
    str(path.relative_to(folder)): [path.stat().st_size, _digest(path)]
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not _is_ours(path)
  }
  (folder / FILE_NAME).write_text(json.dumps({"files": files}, indent=1))


def damage(folder: pathlib.Path, *, thorough: bool = True) -> str:
  """What is wrong with a sealed folder, in a few words; nothing: "".

  Args:
    folder: see `write`.
    thorough: read every byte; else only sizes are compared.
  """
  path = folder / FILE_NAME
  if not path.exists():
    return f"{FILE_NAME} is missing"
  try:
    files = json.loads(path.read_text())["files"].items()
  except (ValueError, KeyError, TypeError):
    return f"{FILE_NAME} cannot be read"
  for name, (size, digest) in files:
    file = folder / name
    if not file.is_file():
      return f"{name} is missing"
    if file.stat().st_size != size:
      return f"{name} has {file.stat().st_size} bytes instead of {size}"
    if thorough and _digest(file) != digest:
      return f"{name} has changed"
  return ""


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _is_ours(path: pathlib.Path) -> bool:
  # Orbax writes the time of the commit into its own file after the seal.
  return path.name in (FILE_NAME, "_CHECKPOINT_METADATA")
