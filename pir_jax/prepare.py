"""Prepares a video for training: `python -m pir_jax.prepare --video=me.mp4`.

Finds and follows the face, fits the parametric head to every frame, and
writes windows, masks, coefficients and sound to a folder.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import flags

from pir_jax import footage
from pir_jax.data import manifest, media, store, timing
from pir_jax.face import masks, morphable
from pir_jax.metrics import lips
from pir_jax.runtime import command
from pir_jax.types import InputError

_VIDEO = flags.DEFINE_string("video", None, "Video of one person talking.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to make, e.g. data/me.")
_FACE = flags.DEFINE_integer(
  "face", 0, "Which face, where there are several: 0 is the largest."
)
_RESOLUTION = flags.DEFINE_integer(
  "resolution",
  512,
  "Side of the stored window; never more than the source's.",
  lower_bound=16,
)
_OVERWRITE = flags.DEFINE_boolean(
  "overwrite", False, "Replace a folder that an earlier preparation made."
)
_REGION = flags.DEFINE_enum(
  "mask_region",
  masks.Config().region,
  masks.REGIONS,
  "What the network shall paint: the face, or only what lies below the eyes.",
)
_MARGIN = flags.DEFINE_float(
  "mask_margin",
  masks.Config().face_margin,
  "Added all round it, as a share of face height.",
  lower_bound=0.0,
  upper_bound=0.5,
)
_JAW_OPEN = flags.DEFINE_float(
  "mask_jaw_open",
  masks.Config().jaw_open,
  "The widest opening of the mouth that it covers; 1 is the face model's own.",
  lower_bound=0.0,
  upper_bound=2.0,
)
_CHUNK = 32  # Frames whose masks are made together: bounds memory.


def prepare(
  video: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  face: int = 0,
  resolution: int = 512,
  config: masks.Config | None = None,
  overwrite: bool = False,
) -> manifest.Manifest:
  """Prepares one clip; see the flags.

  Raises:
    InputError: the video cannot be used, or the folder is already there.
  """
  output = pathlib.Path(output)
  if output.exists() and not overwrite:
    raise InputError(
      f"{output} is already there: say --overwrite or choose another name."
    )
  seen = footage.analyse(video, face=face, config=config)
  sound = (
    media.read_audio(seen.path)
    if seen.video.has_audio
    else np.zeros(0, np.float32)
  )
  for note in notes(seen):
    print(note)
  side = min(resolution, round(float(np.median(seen.track.window[:, 2]))))
  return store.write_dataset(
    output,
    seen.track,
    _frames(seen, side),
    sound,
    opening=lips.opening(seen.track.landmarks[..., :2]),
    video=seen.video,
    expression_names=morphable.EXPRESSION_NAMES,
    masks=dataclasses.asdict(seen.config),
    overwrite=overwrite,
  )


def _frames(seen: footage.Footage, side: int) -> Iterator[store.Frame]:
  chosen = timing.select_frames(seen.track.times)
  chosen = chosen[seen.measured[chosen]]
  crops = seen.crops(chosen, side)
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
      yield store.Frame(int(index), image, mask, head, mouth)


def notes(seen: footage.Footage) -> list[str]:
  """What a person should know before training on a clip."""
  found = []
  if seen.num_faces > 1:
    found.append(
      f"{seen.num_faces} faces are in the video; --face chooses another one. "
      "(Someone who was out of sight for more than a second counts again.)"
    )
  return found


def main() -> None:
  """The command."""
  if not _VIDEO.value or not _OUTPUT.value:
    raise InputError("say --video=FILE and --output=FOLDER.")
  made = prepare(
    _VIDEO.value,
    _OUTPUT.value,
    face=_FACE.value,
    resolution=_RESOLUTION.value,
    config=masks.Config(
      region=_REGION.value,
      face_margin=_MARGIN.value,
      jaw_open=_JAW_OPEN.value,
    ),
    overwrite=_OVERWRITE.value,
  )
  print(manifest.report(made))


if __name__ == "__main__":
  command.run(main)
