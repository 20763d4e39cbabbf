"""Files opened with FFmpeg: their streams, decoded in presentation order.

Times are exact, in seconds of the container's own clock.
"""

import collections
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av

from pir_jax.types import InputError

Path = str | pathlib.Path

# Recordings of these kinds may begin and end in the middle of a frame: packets
# that cannot be decoded there are left out.
_OPEN_ENDED = {"mpegts", "mpeg", "mp3", "aac"}
# Seconds by which a clock may go back (frames out of order), and on.
LARGEST_STEP_BACK, LONGEST_HOLE = 0.5, 3600
# Code words of ISO/IEC 23001-7 and of shops' own protection.
_ENCRYPTED = {"encv", "enca", "drmi", "drms"}


def existing(path: Path) -> pathlib.Path:
  """Returns the path of a file, checked to exist and not to be empty.

  Raises:
    InputError: it is missing, a folder or empty.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f"{path} does not exist: check the name.")
  if not path.is_file():
    raise InputError(f"{path} is a folder: name one video or sound file.")
  if path.stat().st_size == 0:
    raise InputError(f"{path} is an empty file: copy it again.")
  return path


def open_media(path: Path):
  """Opens a file with PyAV; the caller closes it.

  Raises:
    InputError: no such file, or one that cannot be decoded.
  """
  path = existing(path)
  if is_animated_webp(path):
    raise InputError(
      f"{path} is an animated WebP, which FFmpeg does not read: convert it to "
      "mp4 first."
    )
  if _begins(path, 4) == b"RIFX":
    raise InputError(
      f"{path} is a wav of the big-endian kind (RIFX), which FFmpeg reads as "
      "noise: convert it with another program first, such as SoX."
    )
  try:
    container = av.open(
      # "file:" keeps names such as "a:b.mp4" from being read as addresses.
      "file:" + os.fspath(path.absolute()),
      # A playlist must not fetch the files that it lists.
      container_options={"protocol_whitelist": "file"},
      # Titles in old encodings are no reason to refuse.
      metadata_errors="replace",
    )
  except (av.error.FFmpegError, OSError) as error:
    raise InputError(
      f"{path} cannot be read as video or sound ({reason(error)}): it is"
      " damaged, cut short or of another kind."
    ) from error
  if container.format.name == "tty":  # FFmpeg's word for any text.
    container.close()
    raise InputError(f"{path} is a text: name a video or sound file.")
  return container


def is_animated_webp(path: pathlib.Path) -> bool:
  """Returns whether a file is a WebP of several pictures (RFC 9649)."""
  head = _begins(path, 21)
  webp = len(head) == 21 and head[:4] + head[8:16] == b"RIFFWEBPVP8X"
  return webp and bool(head[20] & 2)


def _begins(path: pathlib.Path, count: int) -> bytes:
  try:
    with open(path, "rb") as file:
      return file.read(count)
  except OSError:  # Whoever opens it says why.
    return b""


def reason(error: Exception) -> str:
  """Returns FFmpeg's short text for an error."""
  return getattr(error, "strerror", None) or str(error)


def moving(container) -> list:
  """Returns the video streams, without the cover images of songs."""
  cover = av.stream.Disposition.attached_pic
  return [s for s in container.streams.video if not s.disposition & cover]


def videos_in(
  folder: pathlib.Path, suffixes: tuple[str, ...]
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Splits the files of a folder, and of folders in it, by kind.

  Args:
    folder: hidden files in it are neither.
    suffixes: of names that are taken for videos without a look: a damaged one
      is a fault to report.

  Returns:
    The videos, and the other files: pictures, sounds, texts.
  """
  videos, others = [], []
  for path in sorted(folder.rglob("*")):
    if path.is_file() and not path.name.startswith("."):
      known = path.suffix.lower() in suffixes or _is_video(path)
      (videos if known else others).append(path)
  return videos, others


def _is_video(path: pathlib.Path) -> bool:
  if is_animated_webp(path):  # Opening it gives the reason why not.
    return True
  try:
    with open_media(path) as container:
      name = container.format.name
      still = name.endswith("_pipe") or name == "image2"
      return bool(moving(container)) and not still
  except InputError:
    return False


def _chosen(streams: list, path: Path):
  """Returns the default stream that can be decoded, else the first one."""
  open_ones = [s for s in streams if s.codec_context is not None]
  if not open_ones:
    raise InputError(
      f"{path} holds {streams[0].type} of a kind that cannot be decoded here,"
      " or that is encrypted: convert it to H.264 and AAC in an mp4 file."
    )
  default = av.stream.Disposition.default
  marked = [s for s in open_ones if s.disposition & default]
  stream = (marked or open_ones)[0]
  if _tag(stream) in _ENCRYPTED:
    raise _encrypted(path)
  stream.thread_type = "AUTO"
  return stream


def _tag(stream) -> str:
  try:
    return stream.codec_context.codec_tag
  except UnicodeDecodeError:  # A number, as of G.722 in a wav.
    return ""


def video_stream(container, path: Path):
  """Returns a file's video stream; InputError without one to decode."""
  streams = moving(container)
  if not streams:
    raise InputError(f"{path} has no picture: give a video file.")
  return _chosen(streams, path)


def sound_stream(container, path: Path):
  """Returns a file's audio stream; InputError without one to decode."""
  streams = list(container.streams.audio)
  if not streams:
    raise InputError(f"{path} has no sound: give a file with speech.")
  return _chosen(streams, path)


def packets(container, stream, path: Path) -> Iterator[av.Packet]:
  """Yields the packets of a stream, and an empty one at the end.

  Raises:
    InputError: the file is damaged.
  """
  try:
    yield from container.demux(stream)
  except IndexError:
    # PyAV 18 fails at the end, after the empty packet of this stream, on
    # streams that a broken file seems to begin midway.
    return
  except av.error.FFmpegError as error:
    raise InputError(
      f"{path} is damaged ({reason(error)}): convert or copy it again."
    ) from error


def decode(container, stream, path: Path) -> Iterator[tuple[Fraction, object]]:
  """Yields (time, frame) of a stream; the time is None where none is known.

  Raises:
    InputError: a packet cannot be decoded.
  """
  count = 0
  fault = last = None
  open_ended = bool(set(container.format.name.split(",")) & _OPEN_ENDED)
  # AVI has decoding times only: with B-frames, the first frame out takes the
  # first time.
  due = collections.deque() if container.format.name == "avi" else None
  try:
    for packet in packets(container, stream, path):
      if due is not None and packet.size and packet.dts is not None:
        due.append(packet.dts)
      try:
        frames = packet.decode()
      except av.error.FFmpegError as error:
        if packet.has_sidedata("encryption_info"):
          raise _encrypted(path) from error
        fault = fault or error
        if not open_ended:
          raise
        continue
      if count and frames and fault:
        raise fault
      for frame in frames:
        fault = None
        place = due.popleft() if due else frame.pts
        time = None
        if place is not None and frame.time_base is not None:
          time = place * frame.time_base
          _check_clock(last, time, path)
          last = time
        yield time, frame
        count += 1
  except av.error.FFmpegError as error:
    raise InputError(
      f"{path} is damaged after {count} {stream.type} frames"
      f" ({reason(error)}): convert or copy it again."
    ) from error
  if fault and not count:
    raise InputError(
      f"{path} holds no {stream.type} frame that can be decoded"
      f" ({reason(fault)}): convert or copy it again."
    ) from fault


def _check_clock(last: Fraction | None, now: Fraction, path: Path) -> None:
  if last is not None and not -LARGEST_STEP_BACK < now - last < LONGEST_HOLE:
    raise InputError(
      f"{path} has a clock that jumps from {float(last):.1f} to"
      f" {float(now):.1f} s, as when recordings are joined: convert it to mp4"
      " first."
    )


def _encrypted(path: Path) -> InputError:
  return InputError(
    f"{path} is encrypted (copy protection): give a file without it."
  )


def decode_timed(container, stream, path: Path):
  """Yields as `decode`; InputError where a time is unknown."""
  for time, frame in decode(container, stream, path):
    if time is None:
      raise InputError(
        f"{path} has frames without a time: convert it to mp4 first."
      )
    yield time, frame


def time_zero(path: Path) -> Fraction:
  """Returns the container time of the first video frame."""
  with open_media(path) as container:
    stream = video_stream(container, path)
    for time, _ in decode_timed(container, stream, path):
      return time
  raise InputError(f"{path} holds no frame: it is damaged or cut short.")


def picture_start(path: Path) -> Fraction | None:
  """Returns the container time at which the picture starts.

  As declared where the picture cannot be decoded, which sound does not need;
  None without a picture.
  """
  try:
    return time_zero(path)
  except InputError:
    with open_media(path) as container:
      for stream in moving(container):
        if stream.start_time is not None:
          return Fraction(stream.start_time * stream.time_base)
    return None


def declared_end(container, stream) -> Fraction | None:
  """Returns the container time of a stream's declared end, None without one."""
  start = (stream.start_time or 0) * (stream.time_base or 0)
  if container.format.name == "avi" and stream.frames and stream.average_rate:
    # Its duration is guessed from the size of the file.
    return start + stream.frames / stream.average_rate
  if stream.duration is not None:
    return start + stream.duration * stream.time_base
  # Matroska, as FFmpeg and MKVToolNix write it: 00:00:08.000000000.
  words = stream.metadata.get("DURATION", "").split(":")
  try:
    hours, minutes, seconds = (Fraction(word) for word in words)
  except ValueError:
    return None
  # Cutting without rewriting it leaves it too long.
  whole = Fraction(container.duration or 0, av.time_base)
  return min(3600 * hours + 60 * minutes + seconds, whole)
