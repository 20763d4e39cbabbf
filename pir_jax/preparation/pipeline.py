"""Prepares one video for training: tracks, fits, crops and grades it.

The result is a function of `key`: the video's bytes, the settings and the
version of the preparation.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import numpy as np

from pir_jax.data import hdtf, manifest, records, timing
from pir_jax.face import masks as masks_lib
from pir_jax.face import morphable
from pir_jax.media import prefetch, video_reader, whole_file
from pir_jax.preparation import (
  motion,
  quality,
  quality_report,
  seen,
  segment,
  thumbnails,
  tracking,
  visibility,
)
from pir_jax.runtime import progress
from pir_jax.types import InputError

# Counts up when the same video gives other values: clips that an earlier
# preparation finished are then not taken for today's. So does that of `seen`.
VERSION = 3
VIDEO = "video.mp4"
PART = ".part"  # Ends the names of folders that are not yet whole.
_CHUNK = 32  # Frames whose masks are made together: bounds memory.


@dataclasses.dataclass(kw_only=True, slots=True)
class Settings:
  """What a user chooses for every clip.

  Attributes:
    face: which one, counted from the largest, or a reference picture's path.
    face_model: file of another face model; None is the open head.
    resolution: side of the stored window, never more than the source's.
    masks: of masks and window.
    max_seconds: of a longer video the best so many are taken, see `segment`; 0
      takes all.
  """

  face: int | str = 0
  face_model: str | None = None
  resolution: int = 512
  masks: masks_lib.Config = dataclasses.field(default_factory=masks_lib.Config)
  max_seconds: float = 0.0

  def to_json(self) -> dict:
    """Returns plain values, for another process."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: dict) -> "Settings":
    """Inverts to_json."""
    return cls(**values | {"masks": masks_lib.Config(**values["masks"])})

  def digest(self) -> str:
    """Returns a hash of the settings, of files by their content.

    Raises:
      InputError: a file they name is not there.
    """
    values = self.to_json() | {"version": [VERSION, manifest.VERSION]}
    if not self.max_seconds:  # As before there was a choice.
      del values["max_seconds"]
    if isinstance(self.face, str):
      values["face"] = video_reader.digest(self.face)
    if self.face_model is not None:
      values["face_model"] = video_reader.digest(self.face_model)
    return _digest(values)


def _digest(values: dict) -> str:
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def key(sha256: str, settings_digest: str, cut: hdtf.Cut | None = None) -> str:
  """Returns the name of a preparation's result: equal keys, equal bytes.

  Args:
    sha256: of the video.
    settings_digest: from Settings.digest.
    cut: the piece of the video that is taken.
  """
  values = {"video": sha256, "settings": settings_digest}
  if cut is not None:
    values["cut"] = cut.to_json()
  return _digest(values)


def track(
  video: str | pathlib.Path,
  settings: Settings,
  cut: hdtf.Cut | None = None,
) -> tracking.TrackedVideo:
  """Tracks and fits the chosen face with the chosen model.

  Args:
    video: or the piece that was cut out of one.
    settings: see Settings.
    cut: the piece, whose name the video then has.

  Raises:
    InputError: the video cannot be used.
  """
  model = None
  if settings.face_model is not None:
    model = morphable.load(settings.face_model)
  info = video_reader.probe(video)
  if cut is not None:
    info = info._replace(name=cut.source)
  return tracking.track(
    video, video=info, face=settings.face, config=settings.masks, model=model
  )


def check(
  video: str | pathlib.Path, settings: Settings, cut: hdtf.Cut | None = None
) -> tuple[str, bool]:
  """Returns the report on a video, and whether it is rejected.

  Raises:
    InputError: the video cannot be used at all.
  """
  cut, _ = _chosen(video, settings, cut)
  with (
    tempfile.TemporaryDirectory() as folder,
    _piece(video, pathlib.Path(folder), cut) as piece,
  ):
    tracked = track(piece, settings, cut)
    measured = quality.measure(tracked, tracked.audio())
  return quality.report(measured), measured.level == "rejected"


def _chosen(
  video: str | pathlib.Path, settings: Settings, cut: hdtf.Cut | None
) -> tuple[hdtf.Cut | None, segment.Piece | None]:
  """Returns the piece to take, and why; None for all of the video."""
  if cut is None and settings.max_seconds:
    return segment.choose(video, settings.max_seconds) or (None, None)
  return cut, None


@contextlib.contextmanager
def _piece(
  video: str | pathlib.Path, folder: pathlib.Path, cut: hdtf.Cut | None
) -> Iterator[pathlib.Path]:
  """Yields the video, or the piece of it that is cut out into a folder."""
  if cut is None:
    yield pathlib.Path(video)
    return
  piece = folder / VIDEO
  try:
    cut.write(video, piece)
    yield piece
  except InputError as error:
    # The piece is ours: its place means nothing to the user.
    raise InputError(str(error).replace(str(piece), cut.source)) from error


def prepare(
  video: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  settings: Settings | None = None,
  cut: hdtf.Cut | None = None,
  overwrite: bool = False,
  with_page: bool = True,
) -> manifest.Manifest:
  """Prepares one clip; `output` holds all of it or does not exist.

  Args:
    video: of one person talking.
    output: folder to make.
    settings: see Settings.
    cut: the piece of the video to take; it is kept with the clip as a video of
      its own.
    overwrite: replace a clip that an earlier preparation made.
    with_page: write a report.html into the folder.

  Raises:
    InputError: the video cannot be used, or the folder is already there.
  """
  if "://" in str(output):
    raise InputError(
      f"{output} is not a local folder: to write to an address use --input."
    )
  output = pathlib.Path(output)
  settings = settings or Settings()
  check_free(output, overwrite)
  whole_file.check_folder(output.parent)
  part = output.parent / f".{uuid.uuid4().hex}{PART}"
  folder = part / output.name
  part.mkdir(parents=True)
  try:
    digest = video_reader.digest(video)
    result = key(digest, settings.digest(), cut)
    cut, best = _chosen(video, settings, cut)
    with _piece(video, part, cut) as piece:
      made = _write(piece, folder, settings, cut)
      if cut is not None:
        piece.rename(folder / VIDEO)
    made.preparation = result
    if best is not None:
      made.quality["chosen"] = dataclasses.asdict(best) | {"why": best.why()}
    made.save(folder)
    if with_page:
      quality_report.write(folder)
    if output.exists():
      # Set aside, not deleted first: a kill in between loses nothing.
      output.rename(part / "before")
    folder.rename(output)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return made


def check_free(output: pathlib.Path, overwrite: bool) -> None:
  """Raises InputError where a folder may not be made or replaced."""
  if not output.exists():
    return
  if not (output / records.FRAMES).is_file():
    raise InputError(
      f"{output} exists and is not a prepared clip, so it is not replaced:"
      " choose another name."
    )
  if not overwrite:
    raise InputError(
      f"{output} exists already: overwrite it (--overwrite, overwrite=True) or "
      "choose another name."
    )


def _write(
  video: str | pathlib.Path,
  folder: pathlib.Path,
  settings: Settings,
  cut: hdtf.Cut | None,
) -> manifest.Manifest:
  tracked = track(video, settings, cut)
  sound = tracked.audio()
  if tracked.num_faces > 1:
    print(
      f"{tracked.num_faces} people are in the video; --face chooses another"
      " one."
    )
  if cut is None:  # `reenact` meets the same file.
    seen.remember(tracked)
  progress.say("cutting out and grading the windows")
  largest = round(float(np.median(tracked.track.window[:, 2])))
  learnable = visibility.learnable(tracked)
  if not learnable.any():
    raise InputError(
      "No frame shows enough of the face to learn from: `prepare --check` "
      f"names what hides it in {tracked.video.name}."
    )
  # What is not seen of lips is guessed, too.
  guessed = tracked.track.present & ~learnable
  made = records.write_dataset(
    folder,
    tracked.track._replace(interpolated=guessed),
    _frames(tracked, min(settings.resolution, largest)),
    sound,
    opening=motion.openings(tracked.track.landmarks),
    video=tracked.video,
    expression_names=tracked.model.expression_names,
    masks=dataclasses.asdict(tracked.config),
    face_model={"name": tracked.model.name, "sha256": tracked.model.sha256},
  )
  made.quality = dataclasses.asdict(quality.measure(tracked, sound))
  strip = thumbnails.make(tracked)
  (folder / quality_report.THUMBNAILS).write_bytes(strip)
  return made


def _frames(
  tracked: tracking.TrackedVideo, side: int
) -> Iterator[records.Frame]:
  """Yields the frames to store, `side` pixels wide."""
  chosen = timing.select_frames(tracked.track.times)
  chosen = chosen[visibility.learnable(tracked)[chosen]]
  crops = prefetch.taken(tracked.crops(chosen, side))
  for start in range(0, len(chosen), _CHUNK):
    part = chosen[start : start + _CHUNK]
    regions = zip(
      part,
      tracked.face_masks(part, side),
      tracked.head_masks(part, side),
      tracked.mouth_masks(part, side),
      strict=True,
    )
    for index, mask, head, mouth in regions:
      frame, image = next(crops)
      assert frame == index
      yield records.Frame(int(index), image, mask, head, mouth)
