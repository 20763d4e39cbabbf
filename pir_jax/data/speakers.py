"""Many people's clips: who speaks in which, and who is held out.

A list is a table with tabs between its columns: `file` and `speaker` must be
there, `shift` may be, others are left alone.
"""

import csv
import dataclasses
import pathlib
from typing import NamedTuple

from pir_jax.data import text_file
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.types import ConfigError, InputError

_COLUMNS = ("file", "speaker")


class Entry(NamedTuple):
  """A clip's line of the list.

  Attributes:
    speaker: names the person; one may have many clips.
    shift: ticks by which its sound comes late; None where that could not be
      measured, and the clip teaches no speech.
  """

  speaker: str
  shift: int | None = 0


def read(path: str | pathlib.Path) -> dict[str, Entry]:
  """Reads a list of clips, by the names of their files.

  Raises:
    InputError: it cannot be read, lacks a column, or a line is wrong.
  """
  lines = csv.DictReader(text_file.read_lines(path), delimiter="\t")
  missing = [name for name in _COLUMNS if name not in (lines.fieldnames or ())]
  if missing:
    raise InputError(
      f"{path} has no column {missing[0]!r}: its first line must name the "
      f"columns, {' and '.join(_COLUMNS)} among them, with tabs between."
    )
  entries = {}
  for number, line in enumerate(lines, 2):
    file, speaker = (line[name] for name in _COLUMNS)
    if not file or not speaker:
      raise InputError(f"{path}, line {number}: file or speaker is empty.")
    if file in entries:
      raise InputError(f"{path}, line {number}: {file} is there twice.")
    shift = line.get("shift") or ("0" if "shift" not in line else "")
    try:
      entries[file] = Entry(speaker, int(shift) if shift else None)
    except ValueError as error:
      raise InputError(
        f"{path}, line {number}: shift={shift!r} must be a whole number of "
        "ticks of 40 ms, or empty where it is not known."
      ) from error
  return entries


def split(
  data: Dataset, path: str | pathlib.Path, fold: int, num_folds: int
) -> Dataset:
  """Holds whole people out instead of the tails of clips.

  Speakers are dealt out to the folds in the order of their names, so that
  every source of clips is in each.

  Args:
    data: clips, of which those that the list names are kept.
    path: of the list.
    fold: whose speakers are held out, from 0.
    num_folds: into how many parts the speakers are dealt; 0 holds nobody out:
      tails are held out, as of one clip.

  Raises:
    InputError: the list cannot be used, or names no clip of the data.
    ConfigError: there is no such fold.
  """
  if num_folds and not 0 <= fold < num_folds:
    raise ConfigError(f"fold={fold} must be from 0 to {num_folds - 1}")
  entries = read(path)
  listed = [clip for clip in data if clip.manifest.source in entries]
  if not listed:
    raise InputError(
      f"{path} names no clip of the data: the column `file` must hold the "
      "names of the videos as they were prepared."
    )
  speakers = sorted({entries[clip.manifest.source].speaker for clip in listed})
  if num_folds > len(speakers):
    raise ConfigError(
      f"num_folds={num_folds} is more than the {len(speakers)} speakers"
    )
  held = set(speakers[fold::num_folds]) if num_folds else set()
  return Dataset(
    [
      _placed(clip, entries[clip.manifest.source], held if num_folds else None)
      for clip in listed
    ]
  )


def _placed(clip: Clip, entry: Entry, held: set[str] | None) -> Clip:
  """Returns a clip with its speaker, its shift and its part in the split."""
  manifest = clip.manifest
  if held is not None:
    start, stop = manifest.train[0], manifest.held_out[1]
    whole, none = [start, stop], [stop, stop]
    train, held_out = (
      ([start, start], whole) if entry.speaker in held else (whole, none)
    )
    manifest = dataclasses.replace(manifest, train=train, held_out=held_out)
  return dataclasses.replace(
    clip, manifest=manifest, speaker=entry.speaker, shift=entry.shift
  )
