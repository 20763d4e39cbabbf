"""Prepares one clip, for Python."""

import pathlib

from pir_jax.data.dataset import Clip
from pir_jax.preparation import pipeline

Path = str | pathlib.Path


def prepare(
  video: Path,
  output: Path,
  *,
  face: int | Path = 0,
  face_model: Path | None = None,
  resolution: int = 512,
  overwrite: bool = False,
  max_seconds: float = 0.0,
) -> Clip:
  """Prepares a video of one person talking, for training.

  Detects and tracks the face, fits the parametric head to every frame, and
  writes windows, masks, coefficients, sound and report.html to a folder.

  Args:
    video: any video file; its speech goes with the face.
    output: folder to make, whole or not at all.
    face: which one, where there are several: 0 is the largest, 1 the next; or
      a picture of the person.
    face_model: file of `pir_jax.convert face_model`; None is the open head with
      52 expression coefficients.
    resolution: side of the stored window in pixels; never more than the
      source's.
    overwrite: replace what an earlier preparation made.
    max_seconds: of a longer video the best so many are taken; 0 takes all.

  Raises:
    InputError: the video cannot be read or shows no face, or the folder exists
      already.
  """
  settings = pipeline.Settings(
    face=face if isinstance(face, int) else str(face),
    face_model=face_model and str(face_model),
    resolution=resolution,
    max_seconds=max_seconds,
  )
  pipeline.prepare(video, output, settings=settings, overwrite=overwrite)
  return Clip.open(output)
