"""The checkpoints that lie in a run directory: which of them are whole?

Those that are not are moved to `damaged/` beside them, or only left out where
another process may be writing them.
"""

import pathlib
import sys
import time

from pir_jax.runtime import checkpoint_integrity

# In the place of a step: nothing was ever saved, or nothing that is whole.
NONE, NONE_WHOLE = -1, -2


class Shelf:
  """The folders `checkpoints/STEP` of one run directory."""

  def __init__(self, workdir: pathlib.Path, *, read_only: bool):
    self._workdir = workdir
    self._read_only = read_only

  def path(self, step: int) -> pathlib.Path:
    """Of one checkpoint."""
    return self._workdir / "checkpoints" / str(step)

  def steps(self) -> list[int]:
    """All that have their final name, ascending."""
    folder = self._workdir / "checkpoints"
    if not folder.exists():
      return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())

  def look_over(self) -> None:
    """Sets aside all in which a file has not its size."""
    for step in self.steps():
      if found := self._damage(step, thorough=False):
        self._set_aside(step, found)

  def newest_whole(self) -> int:
    """The newest of which every byte is right, or NONE or NONE_WHOLE."""
    # What was set aside earlier counts: nothing begins from scratch where there
    # was something.
    last = NONE_WHOLE if any(self._workdir.glob("damaged/*")) else NONE
    for step in reversed(self.steps()):
      found = self._damage(step, thorough=True)
      if not found:
        return step
      self._set_aside(step, found)
      last = NONE_WHOLE
    return last

  def _damage(self, step: int, *, thorough: bool) -> str:
    folder = self.path(step)
    if (folder / "state").exists() and not (folder / "about").exists():
      return ""  # Saved before there were seals: taken as it is.
    return checkpoint_integrity.damage(folder, thorough=thorough)

  def _set_aside(self, step: int, found: str) -> None:
    said = f"warning: checkpoint {step} of {self._workdir} is damaged ({found})"
    if self._read_only:
      print(f"{said}: left out.", file=sys.stderr)
      return
    folder = self._workdir / "damaged"
    folder.mkdir(exist_ok=True)
    place = folder / f"{step}-{time.time_ns()}"
    self.path(step).rename(place)
    print(f"{said}: moved to {place}.", file=sys.stderr)
