"""The tracked face in every source frame of a clip, and its file.

t source frames, i identity and e expression coefficients, l landmarks, d sides
of a look.
"""

import pathlib
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Bool, Float, Int

from pir_jax.types import InputError

FILE_NAME = "track.safetensors"
# By far the largest array: a separate file can be read in part.
LANDMARKS = "landmarks.npy"
_CHUNK = 2048  # Frames in memory at once.


class Track(NamedTuple):
  """The face fit of a clip, one row per source frame.

  Attributes:
    times: seconds from the first frame, increasing.
    present: the face is known, detected or interpolated.
    interpolated: known only from its neighbours in time (a short gap).
    pose: camera-to-world of the window's camera (see types.Cameras).
    intrinsics: K in units of the window.
    expression: raw coefficients.
    identity: of the person, in sigma units; one for the clip.
    window: centre x, centre y and side in source pixels; pixel (0, 0) covers
      [0, 1] x [0, 1].
    mask_window: of the square around the mask, which stage 3 is shown: centre
      x, y and side as shares of the window, from its upper left corner.
    landmarks: in units of the window; a memory map where they are many.
    error: RMS distance of the fit to the landmarks, source pixels; NaN where
      the face was not detected.
    face_height: source pixels; NaN where the face was not detected.
    shot: index of each frame's shot, from 0; it changes at cuts.
    look: of the person, see `face.resemblance`; empty where it was not kept.
  """

  times: Float[np.ndarray, "t"]
  present: Bool[np.ndarray, "t"]
  interpolated: Bool[np.ndarray, "t"]
  pose: Float[np.ndarray, "t 4 4"]
  intrinsics: Float[np.ndarray, "t 3 3"]
  expression: Float[np.ndarray, "t e"]
  identity: Float[np.ndarray, "i"]
  window: Float[np.ndarray, "t 3"]
  mask_window: Float[np.ndarray, "t 3"]
  landmarks: Float[np.ndarray, "t l 2"]
  error: Float[np.ndarray, "t"]
  face_height: Float[np.ndarray, "t"]
  shot: Int[np.ndarray, "t"]
  look: Float[np.ndarray, "d"] = np.zeros(0, np.float32)


def check_track(track: Track) -> None:
  """Raises ValueError for uneven rows or known values that are not finite."""
  num_frames = len(track.times)
  for name, value in track._asdict().items():
    if name not in ("identity", "look") and len(value) != num_frames:
      raise ValueError(
        f"track.{name} has {len(value)} rows for {num_frames} times: give one"
        " row per source frame"
      )
  if np.any(np.diff(track.times) <= 0):
    raise ValueError("track.times must increase: drop repeated frames first")
  for name in (
    *("pose", "intrinsics", "expression"),
    *("window", "mask_window", "landmarks"),
  ):
    if not _finite(getattr(track, name), track.present):
      raise ValueError(
        f"track.{name} is not finite in a frame marked present: mark that"
        " frame absent"
      )


def _finite(values: np.ndarray, present: Bool[np.ndarray, "t"]) -> bool:
  """Returns whether all values of the present frames are finite."""
  for start in range(0, len(values), _CHUNK):
    part = slice(start, start + _CHUNK)
    if not np.isfinite(values[part][present[part]]).all():
      return False
  return True


def save_track(
  folder: pathlib.Path, track: Track, stored: Int[np.ndarray, "f"]
) -> None:
  """Writes a track, and which f of its frames have a stored window."""
  arrays = track._asdict() | {"stored": stored}
  landmarks = arrays.pop("landmarks")
  arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
  # Not save_file, which hides the file from all but its owner.
  (folder / FILE_NAME).write_bytes(safetensors.numpy.save(arrays))
  # The array may be a map of this very file: it must not be overwritten.
  part = folder / f"{LANDMARKS}.part"
  written = np.lib.format.open_memmap(
    part, mode="w+", dtype=np.float32, shape=landmarks.shape
  )
  for start in range(0, len(landmarks), _CHUNK):
    written[start : start + _CHUNK] = landmarks[start : start + _CHUNK]
  written.flush()
  del written
  part.replace(folder / LANDMARKS)


def load_track(
  folder: str | pathlib.Path,
) -> tuple[Track, Int[np.ndarray, "f"]]:
  """Reads the track of a prepared clip, and its f frames with a stored window.

  Raises:
    InputError: no such file, or not a track.
  """
  path = pathlib.Path(folder) / FILE_NAME
  if not path.is_file():
    raise InputError(
      f"{path} does not exist: make it with `python -m pir_jax.prepare`."
    )
  try:
    arrays = safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise InputError(
      f"{path} is damaged ({error}): prepare the video again."
    ) from error
  try:
    arrays["landmarks"] = np.load(
      path.with_name(LANDMARKS), mmap_mode="r", allow_pickle=False
    )
  except (OSError, ValueError) as error:
    raise InputError(
      f"{path.with_name(LANDMARKS)} is missing or damaged ({error}): prepare"
      " the video again."
    ) from error
  required = {*Track._fields, "stored"} - set(Track._field_defaults)
  missing = sorted(required - set(arrays))
  if missing:
    raise InputError(
      f"{path} lacks {', '.join(missing)}: prepare the video again."
    )
  track = Track(**{n: arrays[n] for n in Track._fields if n in arrays})
  return track, arrays["stored"]
