"""Checkpoint integrity: damage is detected by a list of sizes and hashes.

The list is written last, so that a folder that has one was complete; a file
that was cut, lost or changed since then no longer matches it. Damaged
checkpoints are moved to `damaged/` beside `checkpoints/`, never deleted.
"""

import hashlib
import json
import pathlib
import sys
import time

FILE_LIST = "files.json"
# In place of a step: nothing was ever saved, or every checkpoint is damaged.
NONE, ALL_DAMAGED = -1, -2


def write(folder: pathlib.Path) -> None:
  """Lists every file in `folder` with its size and sha256."""
  files = {
    str(path.relative_to(folder)): [path.stat().st_size, _file_hash(path)]
    for path in sorted(folder.rglob("*"))
    # Orbax adds the time of the commit to its own file after this list.
    if path.is_file() and path.name not in (FILE_LIST, "_CHECKPOINT_METADATA")
  }
  content = {"files": files, "sha256": _list_hash(files)}
  (folder / FILE_LIST).write_text(json.dumps(content, indent=1))


def damage(folder: pathlib.Path, *, thorough: bool = True) -> str:
  """Describes the first damaged file in a few words; "" where all are whole.

  Args:
    folder: see `write`.
    thorough: hashes every file; otherwise only the list is hashed, and sizes
      are compared.
  """
  path = folder / FILE_LIST
  if not path.exists():
    return f"{FILE_LIST} is missing"
  try:
    content = json.loads(path.read_text())
    files, list_hash = content["files"], content["sha256"]
  except (ValueError, KeyError, TypeError):
    return f"{FILE_LIST} cannot be read"
  if _list_hash(files) != list_hash:
    return f"{FILE_LIST} has changed"
  for name, (size, file_hash) in files.items():
    file = folder / name
    if not file.is_file():
      return f"{name} is missing"
    if file.stat().st_size != size:
      return f"{name} has {file.stat().st_size} bytes instead of {size}"
    if thorough and _file_hash(file) != file_hash:
      return f"{name} has changed"
  return ""


def steps(workdir: pathlib.Path) -> list[int]:
  """Lists the steps whose checkpoints have their final name, ascending."""
  names = (path.name for path in workdir.glob("checkpoints/*"))
  return sorted(int(name) for name in names if name.isdecimal())


def newest_whole(
  workdir: pathlib.Path, *, thorough: bool = True, read_only: bool = False
) -> int:
  """Returns the newest undamaged step of a run, or NONE or ALL_DAMAGED.

  Newer, damaged ones are set aside, see `set_aside_damaged`.
  """
  # Counts what was set aside before: a damaged run must not start afresh.
  last = ALL_DAMAGED if any(workdir.glob("damaged/*")) else NONE
  for step in reversed(steps(workdir)):
    if not _set_aside(workdir, step, thorough, read_only):
      return step
    last = ALL_DAMAGED
  return last


def set_aside_damaged(workdir: pathlib.Path) -> None:
  """Moves every checkpoint in which the size of a file is wrong."""
  for step in steps(workdir):
    _set_aside(workdir, step, thorough=False, read_only=False)


def _set_aside(
  workdir: pathlib.Path, step: int, thorough: bool, read_only: bool
) -> bool:
  """Warns of a damaged checkpoint and moves it; returns whether it was one."""
  folder = workdir / "checkpoints" / str(step)
  reason = damage(folder, thorough=thorough)
  if not reason:
    return False
  outcome = "ignored"
  if not read_only:
    target = workdir / "damaged" / f"{step}-{time.time_ns()}"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    outcome = f"moved to {target}"
  print(
    f"warning: checkpoint {step} of {workdir} is damaged ({reason}): "
    f"{outcome}.",
    file=sys.stderr,
  )
  return True


def _file_hash(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _list_hash(files: dict[str, list]) -> str:
  return hashlib.sha256(json.dumps(files).encode()).hexdigest()
