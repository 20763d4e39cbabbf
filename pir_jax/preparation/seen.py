"""Tracks and windows of known videos, kept so that none are made again.

Tracking a face and fitting the head take longer than all the rest of a
reenactment. The track depends on the pixels, on whose identity is fitted and
on settings, so a digest of these names it, in the cache folder; what was
used longest ago goes when the folder grows.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float

from pir_jax import assets
from pir_jax.data import track as track_lib
from pir_jax.face import fitting, masks, morphable, resemblance
from pir_jax.media import video_reader
from pir_jax.preparation import growing, tracking
from pir_jax.runtime import kept, progress
from pir_jax.types import InputError

# Of tracker, fit, masks and windows: counts up when they give other values.
VERSION = 1
_BLOCK = 1.0  # Seconds of a video, of which so many are tracked as needed.
_MOST_BLOCKS = 3600  # More than needed, that are looked for.
_FIT = "fit.safetensors"
_NUM_FACES = "num_faces.json"
_WINDOWS = "windows.safetensors"


def track(
  path: str | pathlib.Path,
  *,
  video: video_reader.VideoInfo,
  identity: Float[np.ndarray, "i"],
  config: masks.Config,
  model: morphable.FaceModel,
  face: int | str | pathlib.Path | None = None,
  expected: Float[np.ndarray, "d"] | None = None,
  refuse: bool = True,
  seconds: float | None = None,
  in_sections: bool = False,
  **options: Any,
) -> tracking.TrackedVideo | growing.Growing:
  """Tracks a known person in a video, or recalls their track.

  The arguments are those of `tracking.track`; `seconds` are needed at least.
  What is recalled has no `sight`. A file whose content is another is another
  video, whatever its name. `in_sections` a new one may be in use while it is
  tracked, where it is known whom to look for; it is to be closed.
  """
  known = {"identity": identity, "config": config, "model": model}
  path, who = pathlib.Path(path), face
  if isinstance(face, str | pathlib.Path):  # A picture.
    who = hashlib.sha256(pathlib.Path(face).read_bytes()).hexdigest()
  places = [_place(video, who, **known)]
  if seconds is not None:
    blocks = math.ceil(video.duration / _BLOCK)
    needed = math.ceil(seconds / _BLOCK)
    seconds = needed * _BLOCK if needed < blocks else None
    # A track of more will do.
    most = min(blocks, needed + _MOST_BLOCKS)
    places += [
      _place(video, who, **known, seconds=_BLOCK * n)
      for n in reversed(range(needed, most))
    ]
  for place in places:
    tracked = _recall(place, path, video, config, model)
    # Somebody else may have been asked for by force, or another be expected.
    if tracked is not None and (
      not refuse or _resembles(tracked.track.look, expected)
    ):
      progress.say("This video is known: its track is used again.")
      return tracked
  place = places[-1]
  options |= known | {"video": video, "expected": expected, "seconds": seconds}
  if in_sections and face is None and expected is not None and refuse:
    progress.say("This video is new: its track is made on the way.")
    return growing.begin(path, keep=lambda x: _keep(place, x), **options)
  tracked = tracking.track(path, face=face, refuse=refuse, **options)
  _keep(place, tracked)
  return tracked


def remember(tracked: tracking.TrackedVideo) -> None:
  """Keeps a track for whoever knows this identity."""
  place = _place(
    tracked.video, None, tracked.track.identity, tracked.config, tracked.model
  )
  _keep(place, tracked)


def windows_place(
  tracked: tracking.TrackedVideo, side: int, resolution: int
) -> pathlib.Path | None:
  """Names a video's windows and masks as a network is shown them.

  Args:
    tracked: the video.
    side: of the windows in which masks are made.
    resolution: of the network.

  Returns:
    Where `keep_windows` puts them; None where nothing is to be kept.
  """
  folder = _windows()
  if folder is None:
    return None
  track, config = tracked.track, dataclasses.asdict(tracked.config)
  parts = [VERSION, tracked.video.sha256, config, tracked.model.sha256]
  text = json.dumps([*parts, side, resolution])
  digest = hashlib.sha256(text.encode())
  names = ("identity", "times", "present", "shot", "pose", "intrinsics")
  for name in (*names, "window", "mask_window"):
    digest.update(np.ascontiguousarray(getattr(track, name)).tobytes())
  return folder / digest.hexdigest()[:32]


def recall_windows(place: pathlib.Path | None) -> dict[str, np.ndarray]:
  """Returns the arrays that were kept; none where they are damaged."""
  if not kept.use(place):
    return {}
  try:
    return safetensors.numpy.load_file(place / _WINDOWS)
  except (OSError, ValueError, safetensors.SafetensorError):
    kept.drop(place)
    return {}


def keep_windows(
  place: pathlib.Path | None, arrays: dict[str, np.ndarray]
) -> None:
  """Keeps what is made of all frames with a face."""
  # Of an array that lies otherwise, safetensors would write other values.
  arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  kept.write(
    place,
    lambda folder: safetensors.numpy.save_file(arrays, folder / _WINDOWS),
  )


def root() -> pathlib.Path | None:
  """Returns the folder with the tracks of all known videos.

  None where nothing is to be kept, see `assets.kept_directory`.
  """
  return assets.kept_directory("tracks")


def _windows() -> pathlib.Path | None:
  return root() and root().with_name("windows")


def size() -> tuple[int, int]:
  """Returns how many videos are known, and the bytes that are kept of them."""
  count, num_bytes = kept.size(root())
  return count, num_bytes + kept.size(_windows())[1]


def clear() -> None:
  """Forgets all of them."""
  kept.clear(root())
  kept.clear(_windows())


def _place(
  video, face, identity, config, model, seconds=None
) -> pathlib.Path | None:
  """Names a track by all that it depends on; None where none are kept."""
  folder = root()
  if folder is None:
    return None
  parts = [VERSION, video.sha256, face, dataclasses.asdict(config)]
  parts += [model.sha256] + [seconds] * (seconds is not None)
  text = json.dumps(parts)
  digest = hashlib.sha256(text.encode())
  digest.update(np.float32(identity).tobytes())
  return folder / digest.hexdigest()[:32]


def _resembles(look, expected) -> bool:
  if expected is None or not len(look):
    return True
  return resemblance.resemblance(look, expected) >= resemblance.SAME


def _recall(place, path, video, config, model) -> tracking.TrackedVideo | None:
  """Returns None where nothing is kept, or it is damaged."""
  if not kept.use(place):
    return None
  try:
    track, _ = track_lib.load_track(place)
    arrays = safetensors.numpy.load_file(place / _FIT)
    floats = {k: v.item() if v.ndim == 0 else v for k, v in arrays.items()}
    fit = fitting.Fit(expression=track.expression, **floats)
    num_faces = json.loads((place / _NUM_FACES).read_text())
  except (
    *(InputError, OSError, TypeError, ValueError),
    safetensors.SafetensorError,
  ):
    kept.drop(place)
    return None
  return tracking.TrackedVideo(
    path, video, model, fit, track, num_faces, config
  )


def _keep(place: pathlib.Path | None, tracked: tracking.TrackedVideo) -> None:
  def make(folder: pathlib.Path) -> None:
    count = len(tracked.track.times)
    track_lib.save_track(folder, tracked.track, np.arange(count))
    fit = tracked.fit._asdict()
    del fit["expression"]  # The track's.
    arrays = {
      k: np.array(v, order="C") for k, v in fit.items() if v is not None
    }
    (folder / _FIT).write_bytes(safetensors.numpy.save(arrays))
    (folder / _NUM_FACES).write_text(json.dumps(tracked.num_faces))

  kept.write(place, make)
