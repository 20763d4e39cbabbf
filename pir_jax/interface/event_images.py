"""Reads the newest images of a run from its TensorBoard files."""

import functools
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tensorboardX.proto import event_pb2

_MOST = 1 << 24  # Bytes of one event: a longer one is damaged.


class Image(NamedTuple):
  """An image of a run: its name, the step it shows, and its PNG."""

  name: str
  step: int
  png: bytes


def newest(folder: pathlib.Path) -> list[Image]:
  """Returns the newest image of each name, by name.

  Args:
    folder: "tensorboard" of a run; may be missing, and be written to meanwhile.
  """
  images: dict[str, Image] = {}
  for path in sorted(folder.glob("events*")):
    stat = path.stat()
    for image in _newest_of(path, stat.st_size, stat.st_mtime_ns):
      images[image.name] = image
  return [images[name] for name in sorted(images)]


@functools.lru_cache(maxsize=32)
def _newest_of(path: pathlib.Path, size: int, time: int) -> list[Image]:
  """Reads a file once for as long as its size and time stay the same."""
  del size, time
  images = {
    value.tag: Image(value.tag, event.step, value.image.encoded_image_string)
    for event in _events(path)
    for value in event.summary.value
    if value.HasField("image")
  }
  return list(images.values())


def _events(path: pathlib.Path) -> Iterator[event_pb2.Event]:
  """Yields the events of a file, up to where it is being written.

  Each is its length, the length's checksum, its bytes and their checksum.
  """
  with open(path, "rb") as file:
    while len(head := file.read(12)) == 12:
      (size,) = struct.unpack("<Q", head[:8])
      if size > _MOST or len(body := file.read(size + 4)) < size + 4:
        return
      try:
        yield event_pb2.Event.FromString(body[:-4])
      except ValueError:  # Protobuf's DecodeError: the rest is damaged too.
        return
