"""Copies a person's video for browsers, which play few of what cameras write.

`python -m pir_jax.interface.source_copy VIDEO OUTPUT`: the first minute as
H.264 and AAC, at most 720 pixels high.
"""

import itertools
import pathlib
import sys

import numpy as np
from PIL import Image

from pir_jax.media import video_reader, video_writer
from pir_jax.runtime import progress
from pir_jax.types import InputError

LONGEST = 60  # Seconds of it.
_HIGHEST = 720


def copy(video: str | pathlib.Path, output: str | pathlib.Path) -> None:
  """Writes the copy.

  Raises:
    InputError: the video cannot be read, or the copy not written.
  """
  info = video_reader.probe(video)
  scale = min(1.0, _HIGHEST / info.height)
  size = max(2, round(info.width * scale)), max(2, round(info.height * scale))
  total = round(min(LONGEST, info.duration) * info.rate)
  frames = (frame for _, frame in video_reader.read_frames(video))
  frames = itertools.islice(frames, round(LONGEST * info.rate))
  with video_writer.VideoWriter(
    output,
    size,
    info.rate,
    audio=video if info.has_audio else None,
    comment="",
    colors=info.colors,
  ) as sink:
    for frame in progress.track(frames, "copying for the browser", total):
      if scale < 1:
        frame = np.asarray(Image.fromarray(frame).resize(size))
      sink.write(frame)


def main(video: str, output: str) -> int:
  """Writes the copy; returns the exit code."""
  try:
    copy(video, output)
  except InputError as error:
    print(f"source_copy: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
