"""HDTF: the pieces of long videos that its annotation files name.

The files, as published at github.com/MRzzm/HDTF (XX is RD, WDA or WRA; columns
are separated by spaces; video names end in .mp4 except in the first):

  XX_video_url.txt      video, address
  XX_annotion_time.txt  video, then mm:ss-mm:ss for each piece
  XX_crop_wh.txt        video_piece, left, width, top, height: in pixels
  XX_resolution.txt     video, height of the video that those pixels are of

Every piece is cropped and scaled to 512x512. The user downloads the videos; a
piece is called XX_video_000, as in the data set's own script.

h height, w width.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import UInt8
from PIL import Image

from pir_jax.data import text_file
from pir_jax.media import audio, containers, video_reader, video_writer
from pir_jax.types import InputError

SIDE = 512
VIDEO_SUFFIXES = (
  *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv"),
  *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".ogv", ".mxf"),
)
_GRACE = 1e-3  # seconds: the precision of some containers' times
_TIMES = re.compile(r"((?:\d+:)*\d+(?:\.\d+)?)-((?:\d+:)*\d+(?:\.\d+)?)")


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Cut:
  """A piece of a video.

  Attributes:
    name: of the piece.
    start, end: seconds of the video, the end not included.
    crop: left, width, top, height in pixels; None keeps the whole frame.
    height: of the video that the crop was made for; 0 is this one.
  """

  name: str
  start: float
  end: float
  crop: tuple[int, int, int, int] | None = None
  height: int = 0

  @property
  def source(self) -> str:
    """Name of the piece as a file."""
    return self.name + ".mp4"

  def to_json(self) -> dict:
    """Returns plain values, for another process."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: dict) -> "Cut":
    """Inverts to_json."""
    crop = values["crop"]
    return cls(**values | {"crop": crop and tuple(crop)})

  def write(self, video: video_reader.Path, output: video_reader.Path) -> None:
    """Cuts the piece out of its video.

    Resamples the frames from `start` to before `end` at the video's mean rate,
    as a player would; a video of constant rate keeps each frame. The bytes do
    not depend on the number of cores.

    Raises:
      InputError: the video cannot be read, is too short or too small.
    """
    info = video_reader.probe(video)
    box = self._box(info)
    output = pathlib.Path(output)
    wave = output.with_suffix(".wav") if info.has_audio else None
    zero = self._first_time(video)
    try:
      if wave:
        self._write_sound(video, wave, zero)
      with _OneThread(
        output,
        (SIDE, SIDE) if box else (info.width, info.height),
        info.rate,
        audio=wave,
        comment=f"cut from {info.name}, {self.start:g} s to {self.end:g} s",
      ) as made:
        for image in self._images(video, info.rate, zero):
          made.write(_crop(image, box) if box else image)
    finally:
      if wave:
        wave.unlink(missing_ok=True)

  def _box(self, info: video_reader.VideoInfo) -> tuple[float, ...] | None:
    """Returns the crop's left, upper, right and lower edge in pixels."""
    if self.crop is None:
      return None
    scale = info.height / self.height if self.height else 1.0
    left, width, top, height = (scale * edge for edge in self.crop)
    # Scaled edges may exceed the frame by a rounding.
    if left + width > info.width + 1 or top + height > info.height + 1:
      raise InputError(
        f"{info.name} is {info.width}x{info.height}, too small for the crop of"
        f" {self.name}: download it with a height of"
        f" {self.height or 'what the annotations were made for'}."
      )
    right, lower = min(left + width, info.width), min(top + height, info.height)
    return left, top, right, lower

  def _first_time(self, video: video_reader.Path) -> Fraction:
    """Returns the time of the piece's first frame, which is its time 0."""
    first = next(video_reader.read_frames(video, start=self.start), None)
    if first is None or first[0] >= self.end - _GRACE:
      raise InputError(
        f"{video} has no frame between {self.start:g} s and {self.end:g} s,"
        f" where {self.name} is: it is another video or cut short."
      )
    return first[0]

  def _images(
    self, video: video_reader.Path, frame_rate: Fraction, zero: Fraction
  ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frame at each tick of the piece."""
    # Containers round the times of frames: half a frame of grace.
    tick, grace, shown = zero, 1 / frame_rate / 2, None
    for time, image in video_reader.read_frames(video, start=self.start):
      while shown is not None and tick < min(time - grace, self.end - _GRACE):
        yield shown
        tick += 1 / frame_rate
      if time >= self.end - _GRACE:
        return
      shown, last = image, time
    while tick < min(last + grace, self.end - _GRACE):
      yield shown
      tick += 1 / frame_rate

  def _write_sound(
    self, video: video_reader.Path, path: pathlib.Path, zero: Fraction
  ) -> None:
    done, file = 0, None
    try:
      for rate, block in audio.read_sound(video):
        first, last = round(zero * rate), round(self.end * rate)
        if file is None:
          file = soundfile.SoundFile(
            path, "w", rate, block.shape[1], subtype="FLOAT"
          )
        file.write(block[max(0, first - done) : max(0, last - done)])
        done += len(block)
        if done >= last:
          break
    finally:
      if file is not None:
        file.close()


class _OneThread(video_writer.VideoWriter):
  """A writer with one thread: x264's bytes depend on their number."""

  def _open(self) -> None:
    super()._open()
    self._pictures.stream.codec_context.thread_count = 1


def _crop(
  image: UInt8[np.ndarray, "h w 3"], box: tuple[float, ...]
) -> UInt8[np.ndarray, "512 512 3"]:
  resized = Image.fromarray(image).resize(
    (SIDE, SIDE), Image.Resampling.LANCZOS, box=box
  )
  return np.asarray(resized)


class Annotated(NamedTuple):
  """The pieces of all annotation files.

  Attributes:
    cuts: (video, piece) for every piece with a video.
    missing: names of annotated videos that are missing.
    skipped: a sentence for each line that cannot be used.
  """

  cuts: list[tuple[pathlib.Path, Cut]]
  missing: list[str]
  skipped: list[str]


def read_annotations(
  folder: video_reader.Path, videos: video_reader.Path
) -> Annotated:
  """Reads all annotation files of a folder and locates the videos.

  Args:
    folder: with XX_annotion_time.txt and its companion files.
    videos: folder with the videos, called Radio11.mp4 or RD_Radio11.mp4; any
      kind of video.

  Raises:
    InputError: there is no such folder or no annotation in it.
  """
  folder, videos = pathlib.Path(folder), pathlib.Path(videos)
  for place in (folder, videos):
    if not place.is_dir():
      raise InputError(f"{place} is not a folder: check the name.")
  subsets = sorted(folder.glob("*_annotion_time.txt"))
  if not subsets:
    raise InputError(
      f"{folder} holds no *_annotion_time.txt: give HDTF's folder HDTF_dataset."
    )
  have = _videos(videos)
  annotated = Annotated([], [], [])
  for path in subsets:
    _read_subset(path, have, annotated)
  return annotated


def _videos(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  videos = {}
  for path in containers.videos_in(pathlib.Path(folder), VIDEO_SUFFIXES)[0]:
    videos.setdefault(path.stem, path)
  return videos


def _read_subset(path, have, annotated: Annotated) -> None:
  """Adds the pieces of one XX_annotion_time.txt."""
  subset = path.name.removesuffix("_annotion_time.txt")
  crops = _table(path.with_name(f"{subset}_crop_wh.txt"))
  heights = _table(path.with_name(f"{subset}_resolution.txt"))
  for video, times in _table(path).items():
    source = have.get(f"{subset}_{video}") or have.get(video)
    if source is None:
      annotated.missing.append(f"{subset}_{video}")
      continue
    height = heights.get(video, ["0"])
    for index, words in enumerate(times):
      name = f"{subset}_{video}_{index:03d}"
      match = _TIMES.fullmatch(words)
      crop = crops.get(f"{video}_{index}")
      if match is None:
        annotated.skipped.append(f"{name}: {words!r} is not mm:ss-mm:ss")
        continue
      start, end = map(_seconds, match.groups())
      if crop is None:
        annotated.skipped.append(f"{name}: {subset}_crop_wh.txt lacks it")
      elif not _are_integers(crop, 4) or not _are_integers(height, 1):
        annotated.skipped.append(f"{name}: its crop or height is no number")
      elif start >= end:
        annotated.skipped.append(f"{name}: {words} ends before it begins")
      else:
        cut = Cut(
          name=name,
          start=start,
          end=end,
          crop=tuple(map(int, crop)),
          height=int(height[0]),
        )
        annotated.cuts.append((source, cut))


def _are_integers(words: list[str], count: int) -> bool:
  return len(words) == count and all(word.isdecimal() for word in words)


def _seconds(words: str) -> float:
  """Parses "mm:ss" or "h:mm:ss"."""
  total = 0.0
  for part in words.split(":"):
    total = 60 * total + float(part)
  return total


def _table(path: pathlib.Path) -> dict[str, list[str]]:
  """Reads lines of words, keyed by the first without .mp4; {} for no file."""
  if not path.is_file():
    return {}
  lines = text_file.read_lines(path)
  rows = [line.split() for line in lines if line.strip()]
  return {row[0].removesuffix(".mp4"): row[1:] for row in rows}
