"""A video's frames forward and backward, for any length.

A short video is extended to longer speech by playing forward, then backward,
and so on: without a jump, and in bounded memory.
"""

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from pir_jax.media import video_reader

CHUNK = 48  # Frames decoded at once when going backward.


def frame_indices(num_frames: int, count: int) -> Int[np.ndarray, "count"]:
  """Returns 0, 1, ..., n - 1, n - 2, ..., 0, 1, ...: without repeated ends."""
  if num_frames == 1:
    return np.zeros(count, np.int64)
  period = 2 * (num_frames - 1)
  place = np.arange(count) % period
  return np.where(place < num_frames, place, period - place)


def read(
  path: str | pathlib.Path, times: Float[np.ndarray, "t"], count: int
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (index, frame), `count` of them.

  Args:
    path: of the video.
    times: of its frames, from `video_reader.read_frames`.
    count: number of frames.
  """
  indices = frame_indices(len(times), count)
  if len(times) == 1:
    _, image = next(video_reader.read_frames(path))
    yield from ((0, image) for _ in range(count))
    return
  start = 0
  while start < count:
    # A leg runs one way, to an end of the video or to the last frame.
    step = indices[start + 1] - indices[start] if start + 1 < count else 1
    stop = start + 1
    while stop < count and indices[stop] - indices[stop - 1] == step:
      stop += 1
    leg = indices[start:stop]
    if step > 0:
      yield from _forward(path, times, int(leg[0]), int(leg[-1]) + 1)
    else:
      for high in range(int(leg[0]) + 1, int(leg[-1]), -CHUNK):
        low = max(high - CHUNK, int(leg[-1]))
        yield from reversed(list(_forward(path, times, low, high)))
    start = stop


def _forward(path, times, low, high):
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
    yield index, image
