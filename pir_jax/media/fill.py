"""A video's frames for any length: what is shown once it is at its end.

In bounded memory; only a loop jumps.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from pir_jax.media import video_reader
from pir_jax.types import InputError

# Forward, backward and so on; again and again; its last frame; no further.
WAYS = ("bounce", "loop", "hold", "cut")
CHUNK = 48  # Frames decoded at once when going backward.
_MAX_BYTES = 2**28  # Of a whole video that is kept: 13 s of 512x512 pixels.


def frame_indices(
  num_frames: int, count: int, way: str = "bounce"
) -> Int[np.ndarray, "_"]:
  """Returns which frame of a video is shown at each of `count` places.

  "bounce" turns round without repeating the ends; "cut" returns no more than
  the video has.

  Raises:
    InputError: there is no such way.
  """
  if way not in WAYS:
    raise InputError(f"fill={way} must be one of {', '.join(WAYS)}.")
  place = np.arange(count)
  if way == "cut":
    return place[:num_frames]
  if way == "hold":
    return np.minimum(place, num_frames - 1)
  if way == "loop" or num_frames == 1:
    return place % num_frames
  period = 2 * (num_frames - 1)
  place %= period
  return np.where(place < num_frames, place, period - place)


def endless(num_frames: int, way: str) -> Iterator[Int[np.ndarray, "_"]]:
  """Yields, part by part, which frame is shown, for ever; but not by "cut"."""
  if way == "cut":
    yield frame_indices(num_frames, num_frames, way)
    return
  # Each part goes on where the one before ends.
  period = {"bounce": 2 * (num_frames - 1), "loop": num_frames}
  length = max(1, period.get(way, num_frames))
  yield frame_indices(num_frames, length, way)
  later = frame_indices(num_frames, 2 * length, way)[length:]
  while True:
    yield later


def read_endless(
  path: str | pathlib.Path,
  times: Float[np.ndarray, "t"] | Callable[[], Float[np.ndarray, "t"]],
  way: str,
  first: Iterable[tuple[int, UInt8[np.ndarray, "h w 3"]]] = (),
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (index, frame) for ever, see `endless`.

  Args:
    path: of the video.
    times: of its frames, see `read`; or what returns them, asked when all
      frames were shown.
    way: what is shown then.
    first: all frames in order, where the times are not known yet.
  """
  kept: dict[int, np.ndarray] = {}
  if not callable(times):
    for indices in endless(len(times), way):
      yield from read(path, times, indices, kept)
    return
  num_frames = 0
  for index, image in first:
    num_frames += 1
    kept[index] = image
    yield index, image
    if num_frames * image.nbytes > _MAX_BYTES:
      kept.clear()
  legs = endless(num_frames, way)
  times, kept = times(), kept if len(kept) == num_frames else {}
  yield from read(path, times, next(legs)[num_frames:], kept)
  for indices in legs:
    yield from read(path, times, indices, kept)


def read(
  path: str | pathlib.Path,
  times: Float[np.ndarray, "t"],
  indices: Int[np.ndarray, "_"],
  kept: dict[int, np.ndarray] | None = None,
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (index, frame) for each of the indices.

  Frames of a short video stay in memory, so that they are decoded once.

  Args:
    path: of the video.
    times: of its frames, from `video_reader.read_frames`.
    indices: from `frame_indices`: it is quick where they go up or down by one
      or stay.
    kept: frames by their indices, of earlier calls; the new ones are added.
  """
  start, last = 0, None
  kept = {} if kept is None else kept
  while start < len(indices):
    stop = _end_of_leg(indices, start)
    leg = indices[start:stop]
    step = leg[1] - leg[0] if len(leg) > 1 else 1
    if kept.keys() >= set(leg.tolist()):
      for index in leg.tolist():
        last = index, kept[index]
        yield last
    elif step == 0:
      if last is None or last[0] != leg[0]:
        last = next(_forward(path, times, int(leg[0]), int(leg[0]) + 1, kept))
      yield from itertools.repeat(last, len(leg))
    elif step > 0:
      for last in _forward(path, times, int(leg[0]), int(leg[-1]) + 1, kept):
        yield last
    else:
      for high in range(int(leg[0]) + 1, int(leg[-1]), -CHUNK):
        low = max(high - CHUNK, int(leg[-1]))
        yield from reversed(list(_forward(path, times, low, high, kept)))
    start = stop


def _end_of_leg(indices, start: int) -> int:
  """Returns where a leg ends: it goes one way, by one a frame, or stays."""
  steps = np.diff(indices[start:])
  if not len(steps) or abs(steps[0]) > 1:
    return start + 1
  turns = np.flatnonzero(steps != steps[0])
  return start + 1 + (int(turns[0]) if len(turns) else len(steps))


def _forward(path, times, low, high, kept):
  """Yields frames [low, high), each with its index."""
  frames = video_reader.read_frames(path, start=float(times[low]))
  first = next(frames, None)
  # Seeking depends on the container's index, and a frame must never appear with
  # the mask and pose of another one.
  if first is None or abs(float(first[0]) - times[low]) > 1e-3:
    frames = itertools.islice(video_reader.read_frames(path), low, None)
    first = next(frames)
  for index, (_, image) in enumerate(itertools.chain([first], frames), low):
    if index >= high:
      return
    if len(times) * image.nbytes <= _MAX_BYTES:
      kept[index] = image
    yield index, image
