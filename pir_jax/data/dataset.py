"""Prepared clips, each opened once and handed on.

t source frames, k ticks of FRAME_RATE, f stored frames, e expression and i
identity coefficients.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import grain
import numpy as np
from jaxtyping import Float, Int

from pir_jax.data import records, timing
from pir_jax.data.manifest import (
  FILE_NAME,
  Manifest,
  Paths,
  as_paths,
  load_manifest,
  pool_space,
)
from pir_jax.data.track import Track, load_track
from pir_jax.types import Cameras, ExpressionStats, FaceSpace, InputError

Split = Literal["train", "held_out"]
# Bytes read at either end of a file of data; whole ones may take hours.
_END = 2**16


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A prepared clip: `prepare` makes one, `Clip.open` opens it again.

  Cameras and expressions come every 1 / FRAME_RATE = 40 ms, as the
  networks predict them, whatever the frame rate of the video.

  Attributes:
    path: folder that holds it.
    manifest: what was prepared, with its settings and statistics.
    track: the face in every source frame.
    stored: source frames whose window is stored.
    speaker: names the person; empty where no list does, see `speakers`.
    shift: ticks by which the sound comes late, which `speech` corrects; None
      where that is not known: then it has no speech.
  """

  path: pathlib.Path
  manifest: Manifest
  track: Track
  stored: Int[np.ndarray, "f"]
  speaker: str = ""
  shift: int | None = 0

  @classmethod
  def open(cls, path: str | pathlib.Path) -> "Clip":
    """Opens the folder of a prepared clip.

    Raises:
      InputError: it holds none, or a damaged one.
    """
    path = pathlib.Path(path)
    return cls(path, load_manifest(path), *load_track(path))

  @property
  def cameras(self) -> Cameras:
    """Cameras of the face's window: poses [k, 4, 4], intrinsics [k, 3, 3].

    In head units; where no face was detected, of the nearest frame with one.
    """
    frames = self._tick_frames()
    return Cameras(self.track.pose[frames], self.track.intrinsics[frames])

  @property
  def expression(self) -> Float[np.ndarray, "k e"]:
    """Raw expression coefficients as fitted, at the same times."""
    return self.track.expression[self._tick_frames()]

  @property
  def expression_stats(self) -> ExpressionStats:
    """Raw expression of the person, over the measured training frames."""
    manifest = self.manifest
    return ExpressionStats(
      np.float32(manifest.expression_mean), np.float32(manifest.expression_std)
    )

  @property
  def expression_names(self) -> tuple[str, ...]:
    """Names of the expression coefficients, in order."""
    return tuple(self.manifest.expression_names)

  @property
  def identity(self) -> Float[np.ndarray, "i"]:
    """Identity coefficients of the person, in sigma units."""
    return self.track.identity

  def trained_on(self, seconds: float) -> "Clip":
    """Returns the clip with its first seconds to train on, the rest held out.

    Mean and std of the expression are those of the first part; that with closed
    lips stays the prepared clip's.

    Raises:
      InputError: one of the two shows no face.
    """
    edge = int(np.searchsorted(self.track.times, seconds - 1e-6))
    measured = self.track.present & ~self.track.interpolated
    if not measured[:edge].any() or not measured[edge:].any():
      raise InputError(
        f"{self.path} shows no face before or after {seconds:g} s: choose "
        "another train_seconds."
      )
    train = self.track.expression[:edge][measured[:edge]].astype(float)
    manifest = dataclasses.replace(
      self.manifest,
      train=[0, edge],
      held_out=[edge, len(self.track.times)],
      expression_mean=train.mean(0).tolist(),
      expression_std=train.std(0).tolist(),
    )
    return dataclasses.replace(self, manifest=manifest)

  def _tick_frames(self) -> Int[np.ndarray, "k"]:
    """Returns the frame with a face nearest to each tick."""
    known = np.flatnonzero(self.track.present)
    ticks = timing.tick_times(self.track.times)
    return known[timing.nearest_frames(self.track.times[known], ticks)]

  def frame_range(self, split: Split) -> tuple[int, int]:
    """Returns [start, stop) of the source frames of a split."""
    start, stop = getattr(self.manifest, split)
    return start, stop

  def frames(self, split: Split) -> Int[np.ndarray, "n"]:
    """Returns the source frames of a split whose window is stored."""
    return self.stored[self.rows(split)]

  def rows(self, split: Split) -> Int[np.ndarray, "n"]:
    """Returns where `frame_records` has the frames of a split."""
    start, stop = self.frame_range(split)
    return np.flatnonzero((self.stored >= start) & (self.stored < stop))

  @functools.cached_property
  def held_out_tick(self) -> int:
    """First tick of the held-out tail."""
    times, edge = self.track.times, self.manifest.held_out[0]
    ticks = timing.tick_times(times)
    if edge >= len(times):
      return len(ticks)
    return int(np.searchsorted(ticks, times[edge] - 1e-6))

  @functools.cached_property
  def frame_records(self) -> grain.sources.ArrayRecordDataSource:
    """Stored windows, to be read in any order."""
    return records.open_records(self.path / records.FRAMES)

  def speech(self) -> list[records.Clip]:
    """Reads the runs of speech, their sound in step with the lips."""
    if self.shift is None:
      return []
    reader = records.open_records(self.path / records.CLIPS)
    runs = [records.decode_clip(reader[row]) for row in range(len(reader))]
    return [records.in_step(run, self.shift) for run in runs]

  @functools.cached_property
  def digest(self) -> dict[str, str]:
    """Hashes by which the clip is known again.

    `manifest` is the sha256 of the manifest; `holds` that of the names and
    sizes of its files and of both ends of each.
    """
    holds = hashlib.sha256()
    for path in sorted(path for path in self.path.iterdir() if path.is_file()):
      size = path.stat().st_size
      holds.update(f"{path.name}\0{size}\0".encode())
      with path.open("rb") as file:
        holds.update(file.read(_END))
        file.seek(max(_END, size - _END))
        holds.update(file.read(_END))
    text = (self.path / FILE_NAME).read_bytes()
    return {
      "name": self.path.name,
      "manifest": hashlib.sha256(text).hexdigest(),
      "holds": holds.hexdigest(),
    }


class Dataset(Sequence[Clip]):
  """Clips that are used together, each opened once."""

  def __init__(self, clips: Sequence[Clip]):
    self._clips = tuple(clips)

  @classmethod
  def open(cls, data: "Dataset | Clip | Paths") -> "Dataset":
    """Opens clips: one folder or many; what is open already stays as it is.

    Raises:
      InputError: a folder is no prepared clip.
    """
    if isinstance(data, Dataset):
      return data
    if isinstance(data, Clip):
      return cls([data])
    return cls([Clip.open(folder) for folder in as_paths(data)])

  def __len__(self) -> int:
    return len(self._clips)

  def __getitem__(self, item):
    return self._clips[item]

  def __str__(self) -> str:
    return ", ".join(str(clip.path) for clip in self)

  @functools.cached_property
  def space(self) -> FaceSpace:
    """The coefficients, pooled over the training frames of all clips.

    Raises:
      InputError: clips were prepared with different face models.
    """
    return pool_space({str(clip.path): clip.manifest for clip in self})

  @property
  def people(self) -> list[dict[str, Any]]:
    """What is known of the person in each clip, and how it was prepared."""
    kept = (
      "source",
      "sha256",
      "identity",
      "expression_mean",
      "expression_std",
      "masks",
      "face_model",
      "resolution",
    )
    return [
      {name: getattr(clip.manifest, name) for name in kept}
      | {"shift": clip.shift, "look": clip.track.look.round(4).tolist()}
      for clip in self
    ]

  @property
  def digest(self) -> list[dict[str, str]]:
    """Hashes of each clip, see `Clip.digest`."""
    return [clip.digest for clip in self]
