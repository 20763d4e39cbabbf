"""One video made ready for training: found, fitted, cut out, described.

What comes out is a function of `key`: the video's bytes, the settings and the
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
from pir_jax.face import fit_data, morphable
from pir_jax.face import masks as masks_lib
from pir_jax.media import prefetch, video_reader
from pir_jax.metrics import lips
from pir_jax.preparation import quality, quality_report, tracking
from pir_jax.types import InputError

# Counts up when the same video gives other numbers: clips that an earlier
# preparation finished are then not taken for today's.
VERSION = 1
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
    masks: how masks and window are drawn.
  """

  face: int | str = 0
  face_model: str | None = None
  resolution: int = 512
  masks: masks_lib.Config = dataclasses.field(default_factory=masks_lib.Config)

  def to_json(self) -> dict:
    """As plain values, for another process."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: dict) -> "Settings":
    """The inverse of to_json."""
    return cls(**values | {"masks": masks_lib.Config(**values["masks"])})

  def digest(self) -> str:
    """Of all that the settings say, files by what is in them.

    Raises:
      InputError: a file they name is not there.
    """
    values = self.to_json() | {"version": [VERSION, manifest.VERSION]}
    if isinstance(self.face, str):
      values["face"] = video_reader.digest(self.face)
    if self.face_model is not None:
      values["face_model"] = video_reader.digest(self.face_model)
    return _digest(values)


def _digest(values: dict) -> str:
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def key(sha256: str, settings_digest: str, cut: hdtf.Cut | None = None) -> str:
  """Names the result of preparing a video: equal keys, equal bytes.

  Args:
    sha256: of the video.
    settings_digest: from Settings.digest.
    cut: the piece of the video that is taken.
  """
  values = {"video": sha256, "settings": settings_digest}
  if cut is not None:
    values["cut"] = cut.to_json()
  return _digest(values)


def analyse(video: str | pathlib.Path, settings: Settings) -> tracking.Footage:
  """Finds, follows and fits the chosen face with the chosen model.

  Raises:
    InputError: the video cannot be used.
  """
  model = None
  if settings.face_model is not None:
    model = morphable.load(settings.face_model)
  return tracking.analyse(
    video, face=settings.face, config=settings.masks, model=model
  )


def sound_of(seen: tracking.Footage) -> np.ndarray:
  """The clip's sound, mono at SAMPLE_RATE; empty where it has none."""
  if not seen.video.has_audio:
    return np.zeros(0, np.float32)
  return video_reader.read_audio(seen.path)


def check(
  video: str | pathlib.Path, settings: Settings, cut: hdtf.Cut | None = None
) -> tuple[str, bool]:
  """What a preparation would say of a video, and whether it is rejected.

  Raises:
    InputError: the video cannot be used at all.
  """
  with (
    tempfile.TemporaryDirectory() as folder,
    _piece(video, pathlib.Path(folder), cut) as piece,
  ):
    seen = analyse(piece, settings)
    if cut is not None:
      seen = seen._replace(video=seen.video._replace(name=cut.source))
    made = quality.appraise(seen, sound_of(seen))
  return quality.report(made), made.verdict == "rejected"


@contextlib.contextmanager
def _piece(
  video: str | pathlib.Path, folder: pathlib.Path, cut: hdtf.Cut | None
) -> Iterator[pathlib.Path]:
  """The video itself, or the piece of it that is cut out into a folder."""
  if cut is None:
    yield pathlib.Path(video)
    return
  piece = folder / VIDEO
  try:
    cut.write(video, piece)
    yield piece
  except InputError as error:
    # The piece is ours: its place means nothing to the user.
    said = str(error).replace(str(piece), cut.source)
    raise InputError(said) from error


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
    raise InputError(f"{output} is no folder here: for an address say --input.")
  output = pathlib.Path(output)
  settings = settings or Settings()
  check_free(output, overwrite)
  part = output.parent / f".{uuid.uuid4().hex}{PART}"
  folder = part / output.name
  part.mkdir(parents=True)
  try:
    digest = video_reader.digest(video)
    with _piece(video, part, cut) as piece:
      made = _write(piece, folder, settings, cut)
      if cut is not None:
        piece.rename(folder / VIDEO)
    made.preparation = key(digest, settings.digest(), cut)
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
      f"{output} is there and is not a prepared clip, so it is not replaced:"
      " choose another name."
    )
  if not overwrite:
    raise InputError(
      f"{output} is already there: say --overwrite or choose another name."
    )


def _write(
  video: str | pathlib.Path,
  folder: pathlib.Path,
  settings: Settings,
  cut: hdtf.Cut | None,
) -> manifest.Manifest:
  seen = analyse(video, settings)
  if cut is not None:
    seen = seen._replace(video=seen.video._replace(name=cut.source))
  sound = sound_of(seen)
  for note in notes(seen):
    print(note)
  largest = round(float(np.median(seen.track.window[:, 2])))
  made = records.write_dataset(
    folder,
    seen.track,
    _frames(seen, min(settings.resolution, largest)),
    sound,
    opening=_openings(seen.track.landmarks),
    video=seen.video,
    expression_names=seen.model.expression_names,
    masks=dataclasses.asdict(seen.config),
    face_model={"name": seen.model.name, "sha256": seen.model.sha256},
  )
  found = quality.appraise(seen, sound)
  made.appraisal = json.loads(json.dumps(dataclasses.asdict(found)))
  (folder / quality_report.THUMBNAILS).write_bytes(quality.pictures(seen))
  return made


def _openings(landmarks: np.ndarray) -> np.ndarray:
  """Of the lips in every frame; in parts, for a long clip's are many."""
  parts = [
    lips.opening(landmarks[part]) for part in fit_data.chunks(len(landmarks))
  ]
  return np.concatenate(parts)


def _frames(seen: tracking.Footage, side: int) -> Iterator[records.Frame]:
  chosen = timing.select_frames(seen.track.times)
  chosen = chosen[seen.measured[chosen]]
  crops = prefetch.taken(seen.crops(chosen, side))
  for start in range(0, len(chosen), _CHUNK):
    part = chosen[start : start + _CHUNK]
    regions = zip(
      part,
      seen.face_masks(part, side),
      seen.head_masks(part, side),
      seen.mouth_masks(part, side),
      strict=True,
    )
    for index, mask, head, mouth in regions:
      frame, image = next(crops)
      assert frame == index
      yield records.Frame(int(index), image, mask, head, mouth)


def notes(seen: tracking.Footage) -> list[str]:
  """What a person should know before training on a clip."""
  found = []
  if seen.num_faces > 1:
    found.append(
      f"{seen.num_faces} people are in the video; --face chooses another one."
    )
  return found
