"""The manifest of a prepared clip: JSON that a person can read."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from pir_jax.types import FaceSpace, InputError

VERSION = 5
FILE_NAME = "manifest.json"
DATA_SET = "data set"  # The kind that the manifest of many clips says it is.
# A coefficient that hardly moves in the data must not be blown up to unit size.
SMALLEST_SCALE = 0.03

Paths = str | pathlib.Path | Sequence[str | pathlib.Path]


@dataclasses.dataclass(kw_only=True, slots=True)
class Manifest:
  """What a prepared clip holds. Frame ranges are [start, stop) of the source.

  Attributes:
    source, sha256: file name and hash of the video.
    width, height, rate, duration: of the video; rate is a fraction "25/1".
    num_frames: of the source; num_with_face of them were measured,
      num_interpolated filled in over short gaps, the rest have no face.
    num_records: frames stored for training and evaluation.
    num_clips: runs stored for speech.
    resolution: side of the stored window in pixels.
    window_side: smallest and largest side of the window in source pixels.
    fit_error_px, fit_error_relative: RMS over measured frames, in source
      pixels and as a share of face height.
    train, held_out: frame ranges; held_out is the clip's tail.
    expression_mean, expression_std: over the measured training frames.
    expression_closed: mean over those of them with the most closed lips.
    identity: coefficients of the person.
    masks: settings of the masks, see `face.masks.Config`; empty where they
      were not made after a fit.
    audio_seconds: sound that goes with the frames; 0 for a silent video.
    preparation: names the video's bytes and the settings that made this, see
      `pipeline.key`; empty where the clip was made otherwise.
    quality: of the clip, see `preparation.quality`; empty where it was not
      measured.
    face_model: name and sha256 of the model whose coefficients these are;
      empty where they are of none.
  """

  version: int = VERSION
  source: str
  sha256: str
  width: int
  height: int
  rate: str
  duration: float
  num_frames: int
  num_with_face: int
  num_interpolated: int
  num_records: int
  num_clips: int
  resolution: int
  window_side: list[float]
  fit_error_px: float
  fit_error_relative: float
  train: list[int]
  held_out: list[int]
  expression_names: list[str]
  expression_mean: list[float]
  expression_std: list[float]
  expression_closed: list[float]
  identity: list[float]
  masks: dict[str, float | str]
  audio_seconds: float
  face_model: dict[str, str] = dataclasses.field(default_factory=dict)
  preparation: str = ""
  quality: dict[str, Any] = dataclasses.field(default_factory=dict)

  def save(self, folder: pathlib.Path) -> None:
    """Writes manifest.json into a folder."""
    text = json.dumps(dataclasses.asdict(self), indent=2)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def load_manifest(folder: str | pathlib.Path) -> Manifest:
  """Reads the manifest of a data set folder.

  Raises:
    InputError: there is none, it is not JSON, or its version or keys are not
      the ones this release writes.
  """
  path = pathlib.Path(folder) / FILE_NAME
  if not path.is_file():
    raise InputError(
      f"{folder} is not a prepared clip (no {FILE_NAME}): make one with"
      " `python -m pir_jax.prepare`."
    )
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise InputError(
      f"{path} is not readable JSON ({error}): prepare the video again."
    ) from error
  if isinstance(values, dict) and values.get("kind") == DATA_SET:
    raise InputError(f"{folder} is a data set of many clips: name one of them.")
  version = values.get("version") if isinstance(values, dict) else None
  if version != VERSION:
    raise InputError(
      f"{path} has version {version} and this release reads {VERSION}:"
      " prepare the video again."
    )
  names = {field.name for field in dataclasses.fields(Manifest)}
  wrong = sorted(names ^ set(values))
  if wrong:
    raise InputError(
      f"{path} lacks or does not know {', '.join(wrong)}: prepare the video"
      " again."
    )
  return Manifest(**values)


def report(made: Manifest) -> str:
  """Summarises a prepared clip in a few lines."""
  low, high = made.window_side
  lines = [
    f"{made.source}: {made.width}x{made.height}, "
    f"{float(Fraction(made.rate)):g} frames a second, "
    f"{made.duration:.2f} s, {made.audio_seconds:.2f} s of sound",
    f"face in {made.num_with_face} of {made.num_frames} frames, "
    f"{made.num_interpolated} more hidden or interpolated",
    f"fit error {made.fit_error_px:.2f} px, "
    f"{100 * made.fit_error_relative:.2f} % of face height (RMS, 468 points)",
    f"window {low:.0f} to {high:.0f} px, stored at {made.resolution} px; "
    f"{made.num_records} frames; the last "
    f"{made.held_out[1] - made.held_out[0]} of the source are held out",
  ]
  if "chosen" in made.quality:
    lines.insert(1, made.quality["chosen"]["why"])
  lines += [f"note: {remark}" for remark in made.quality.get("remarks", ())]
  if made.quality:
    lines.append(f"quality: {made.quality['level']}")
    lines += [f"  {r['what']} {r['remedy']}" for r in made.quality["reasons"]]
  return "\n".join(lines)


def as_paths(paths: Paths) -> list[pathlib.Path]:
  """Lists folders of clips; a folder of many clips stands for its clips.

  Raises:
    InputError: there is no clip.
  """
  if isinstance(paths, str | pathlib.Path):
    paths = [paths]
  folders = [clip for path in paths for clip in _clips(pathlib.Path(path))]
  if not folders:
    raise InputError("no data: name at least one prepared clip.")
  return folders


def _clips(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the folder itself, or the clips of the data set in it."""
  try:
    values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return [folder]  # What is wrong is said where it is read.
  if not isinstance(values, dict) or values.get("kind") != DATA_SET:
    return [folder]
  return sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}"))


def pool_space(manifests: Mapping[str, Manifest]) -> FaceSpace:
  """Pools the coefficients of some clips, by name, over their training frames.

  Raises:
    InputError: clips were prepared with different face models.
  """
  names, manifests = list(manifests), list(manifests.values())
  first = manifests[0]
  for name, other in zip(names, manifests, strict=True):
    if (
      other.expression_names != first.expression_names
      or len(other.identity) != len(first.identity)
      or other.face_model != first.face_model
    ):
      raise InputError(
        f"{name} and {names[0]} were prepared with different face models:"
        " prepare them again with the same one."
      )
  weight = np.array([float(m.train[1] - m.train[0]) for m in manifests])
  weight = weight / weight.sum()
  means = np.array([m.expression_mean for m in manifests])
  stds = np.array([m.expression_std for m in manifests])
  mean = weight @ means
  variance = weight @ (stds**2 + (means - mean) ** 2)
  return FaceSpace(
    identity_size=len(first.identity),
    expression_names=tuple(first.expression_names),
    expression_mean=mean.astype(np.float32),
    expression_scale=np.maximum(np.sqrt(variance), SMALLEST_SCALE).astype(
      np.float32
    ),
    face_model=first.face_model.get("sha256", ""),
  )
