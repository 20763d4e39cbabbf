"""Copies a person's video for browsers, which play few of what cameras write.

`python -m pir_jax.interface.source_copy --video=... --output=...`: the first
minute as H.264 and AAC, at most 720 pixels high.
"""

import itertools
import pathlib

import numpy as np
from absl import flags
from PIL import Image

from pir_jax.media import video_reader, video_writer
from pir_jax.runtime import app, progress

LONGEST = 60  # Seconds of it.
_HIGHEST = 720

_VIDEO = flags.DEFINE_string("video", None, "Video to copy.")
_OUTPUT = flags.DEFINE_string("output", None, "The mp4 to write.")


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


def main() -> None:
  """Runs the command."""
  copy(*app.required(_VIDEO, _OUTPUT))


if __name__ == "__main__":
  app.run(main)
