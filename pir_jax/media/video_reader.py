"""Reads video and sound files as streams of arrays.

h height, w width, n samples. Time 0 is the first video frame (the first sample,
where there is no picture); times are exact fractions.
"""

import array
import hashlib
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import soxr
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from pir_jax.media import audio, containers, tones
from pir_jax.media import frames as frames_lib
from pir_jax.media.containers import Path
from pir_jax.types import SAMPLE_RATE, InputError

# A file that ends this many seconds before its declared end was cut short.
TOLERATED_LOSS = 0.5
# Cameras' frame rates; a measured rate this close is rounded to one.
_USUAL_RATES = (
  *(Fraction(n, 1001) for n in (24000, 30000, 60000)),
  *(Fraction(n) for n in (12, 15, 24, 25, 30, 50, 60, 120)),
)
_LOWEST_RATE = 0.1
_LOUDEST = 1e12  # Full scale is 1, or 2^31 in files that were never scaled.
_CLOSE = 4e-4  # Less than half the difference of 30 and 30000/1001.
_HIGHEST_RATE = 1000  # A higher rate is that of a clock, not of frames.


class VideoInfo(NamedTuple):
  """Metadata of a video file.

  Attributes:
    name: of the file, without its folder.
    sha256: of the file's bytes.
    width, height: as shown: upright, with square pixels.
    rate: mean frames a second.
    duration: seconds the picture lasts.
    num_frames: as declared; None where the container does not declare it.
    sound_rate: samples a second; None where there is no sound.
    remarks: conversions on reading, see `frames.remarks`.
    colors: primaries and transfer of the frames as read, see
      `frames.colors_of`.
  """

  name: str
  sha256: str
  width: int
  height: int
  rate: Fraction
  duration: float
  num_frames: int | None
  sound_rate: int | None
  remarks: tuple[str, ...] = ()
  colors: tuple[int, int] = (frames_lib.BT709, frames_lib.BT709)

  @property
  def has_audio(self) -> bool:
    return self.sound_rate is not None


def digest(path: Path) -> str:
  """Computes SHA-256 of a file's bytes; InputError without such a file."""
  with open(containers.existing(path), "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def probe(path: Path) -> VideoInfo:
  """Reads a video file's metadata, decoding one frame.

  Raises:
    InputError: the file is missing, not a video, or has no frame.
  """
  with containers.open_media(path) as container:
    stream = containers.video_stream(container, path)
    _, frame = next(containers.decode(container, stream, path), (None, None))
    if frame is None:
      raise InputError(f"{path} holds no frame: it is damaged or cut short.")
    shape = frames_lib.shape_of(frame, stream)
    width, height = shape.shown
    remarks = frames_lib.remarks(frame, stream)
    colors = frames_lib.colors_of(frame)
    rate, seconds = _rate(stream), stream.duration
    if seconds is not None:
      seconds = float(seconds * stream.time_base)
    sound_rate = None
    if container.streams.audio:
      sound_rate = containers.sound_stream(container, path).rate
    num_frames = stream.frames or None
  if not (num_frames and seconds and rate):
    # Exact in mp4 and related formats only; elsewhere they may be far off.
    rate, seconds = _measured(path, rate)
  return VideoInfo(
    name=pathlib.Path(path).name,
    sha256=digest(path),
    width=width,
    height=height,
    rate=Fraction(rate),
    duration=seconds,
    num_frames=num_frames,
    sound_rate=sound_rate,
    remarks=remarks,
    colors=colors,
  )


def _rate(stream) -> Fraction | None:
  """Returns frames a second: the exact rate if constant, else the mean."""
  mean, steady = stream.average_rate, stream.guessed_rate
  # A short last frame changes the mean of a constant-rate video a little.
  if mean and steady and abs(steady / mean - 1) < 0.02:
    mean = steady
  rate = mean or steady
  return rate if rate and rate <= _HIGHEST_RATE else None


def _measured(path: Path, declared: Fraction | None) -> tuple[Fraction, float]:
  """Measures frames a second and seconds of a video by its packets' times."""
  with containers.open_media(path) as container:
    stream = containers.video_stream(container, path)
    count, first, last = 0, None, None
    for packet in containers.packets(container, stream, path):
      time = packet.dts if packet.pts is None else packet.pts
      if time is None or not packet.size:
        continue
      count += 1
      first = time if first is None else min(first, time)
      last = time if last is None else max(last, time)
    span = (last - first) * stream.time_base if count > 1 else 0
  if not span:
    rate = declared or Fraction(25)  # A single frame has no rate.
    return rate, float(max(1, count) / rate)
  mean = (count - 1) / span
  if mean < _LOWEST_RATE:
    raise InputError(
      f"{path} has {count} frames in {float(span):.0f} s, too few for a video:"
      " its times are broken; convert it to mp4 first."
    )
  if declared and abs(declared / mean - 1) < 0.02:
    rate = declared
  else:
    rate = mean
  near = min(_USUAL_RATES, key=lambda usual: abs(usual / rate - 1))
  if abs(near / rate - 1) < _CLOSE:
    rate = near
  rate = rate.limit_denominator(1001)
  return rate, float(span + 1 / rate)


def read_frames(
  path: Path, *, start: float = 0.0
) -> Iterator[tuple[Fraction, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (time, RGB frame) in presentation order.

  Frames are upright and whole (not interlaced), SDR, with square pixels, all of
  the first one's size. One frame is in memory at a time. Frames that repeat a
  time are dropped.

  Args:
    path: of the video.
    start: seconds of the first frame wanted; earlier ones are left out.

  Raises:
    InputError: the file is missing, not a video, damaged, or ends long before
      the end it declares.
  """
  with containers.open_media(path) as container:
    stream = containers.video_stream(container, path)
    zero = last = shape = None
    reformatter = VideoReformatter()
    if start > 0:
      zero, shape = _beginning(path)
      if _lands_before(path, zero + Fraction(start)):
        _seek(container, stream, zero + Fraction(start))
    frames = containers.decode_timed(container, stream, path)
    frames = frames_lib.progressive(frames, stream)
    for now, frame in frames_lib.standard_range(frames, stream):
      zero = now if zero is None else zero
      if last is not None and now <= last:
        continue
      last, lasting = now, frame.duration or 0
      if now - zero < start - 1e-3:  # Times went through floats.
        continue
      shape = _steady(shape, frame, stream, now - zero, path)
      yield now - zero, frames_lib.to_rgb(frame, shape, path, reformatter)
    if last is None:
      raise InputError(f"{path} holds no frame: it is damaged or cut short.")
    end = containers.declared_end(container, stream)
    held = max(lasting * frame.time_base, 1 / (_rate(stream) or 1))
    if end is not None and end - last > TOLERATED_LOSS + held:
      raise InputError(
        f"{path} was cut short: it declares {float(end - zero):.1f} s and its"
        f" frames end at {float(last - zero):.1f} s; copy it again."
      )


def _beginning(path: Path) -> tuple[Fraction, frames_lib.Shape]:
  """Returns container time and shape of the first frame."""
  with containers.open_media(path) as container:
    stream = containers.video_stream(container, path)
    for time, frame in containers.decode_timed(container, stream, path):
      return time, frames_lib.shape_of(frame, stream)
  raise InputError(f"{path} holds no frame: it is damaged or cut short.")


def _steady(
  shape: frames_lib.Shape | None, frame, stream, time: Fraction, path: Path
) -> frames_lib.Shape:
  """Returns a frame's shape, resized to that of the first frame."""
  now = frames_lib.shape_of(frame, stream)
  if shape is None:
    return now
  (width, height), (old_width, old_height) = now.shown, shape.shown
  stretch = (width * old_height) / (height * old_width)
  if abs(stretch - 1) > 0.02:  # Sizes are rounded to whole blocks.
    raise InputError(
      f"{path} changes from {old_width}x{old_height} to {width}x{height} at"
      f" {float(time):.1f} s: cut it in two there."
    )
  if now.transposed != shape.transposed:
    size = (shape.height, shape.width)
  else:
    size = (shape.width, shape.height)
  return now._replace(width=size[0], height=size[1])


def _lands_before(path: Path, time: Fraction) -> bool:
  """Returns whether `_seek` works; without an index it may go too far."""
  with containers.open_media(path) as container:
    stream = containers.video_stream(container, path)
    _seek(container, stream, time)
    frames = containers.decode(container, stream, path)
    landed, _ = next(frames, (None, None))
    return landed is not None and landed <= time


def _seek(container, stream, time: Fraction) -> None:
  """Seeks the key frame at or before a container time."""
  # A little early: reordered frames of the group before may be cut off.
  place = int((time - 1) / stream.time_base)
  container.seek(max(place, stream.start_time or 0), stream=stream)


def read_audio(path: Path) -> Float[np.ndarray, "n"]:
  """Reads a file's sound, mono at SAMPLE_RATE, from its first frame's time.

  Takes little more memory than the result itself, 3.7 MiB a minute.

  Raises:
    InputError: the file is missing, damaged, has no sound, or has samples that
      are not finite.
  """
  # Grows in place by sixteenths; joining a list of blocks takes twice the size.
  samples = array.array("f")
  for block in _mono(path):
    samples.frombytes(block.tobytes())
  return np.frombuffer(samples, np.float32)


def sound_remarks(
  path: Path, waveform: Float[np.ndarray, "n"]
) -> tuple[str, ...]:
  """Lists what a user should know of a file's sound; most need nothing.

  Args:
    path: of the file.
    waveform: its sound, see `read_audio`.
  """
  notes = list(audio.examine(path).remarks)
  seconds = len(waveform) / SAMPLE_RATE
  with containers.open_media(path) as container:
    alone = not containers.moving(container)  # `read_frames` sees to the rest.
  missing = audio.missing_seconds(path, seconds) if alone else 0.0
  if missing > TOLERATED_LOSS:
    notes.append(
      f"was cut short: it declares {seconds + missing:.1f} s and ends at "
      f"{seconds:.1f} s"
    )
  share = tones.steady_share(waveform)
  if share is not None and share > tones.MUSIC:
    notes.append(
      f"holds music: {100 * share:.0f} % of it are steady tones; lips follow "
      "speech only"
    )
  return tuple(notes)


def stream_audio(path: Path, block: int) -> Iterator[Float[np.ndarray, "n"]]:
  """Yields the result of `read_audio`, `block` samples at a time.

  The last block may be shorter, and is not empty.

  Raises:
    InputError: as `read_audio`, at the block with the fault.
  """
  pending = array.array("f")
  for piece in _mono(path):
    pending.frombytes(piece.tobytes())
    while len(pending) >= block:
      yield np.asarray(pending[:block])
      del pending[:block]
  if pending:
    yield np.asarray(pending)


def _mono(path: Path) -> Iterator[Float[np.ndarray, "n"]]:
  """Yields blocks of any length, mono at SAMPLE_RATE."""
  resampler = None
  for rate, block in audio.read_sound(path, most_channels=1):
    if resampler is None:
      resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    mono = block[:, 0]
    if not np.all(np.abs(mono) < _LOUDEST):
      raise InputError(
        f"{path} has samples that are not finite: export the sound again."
      )
    yield resampler.resample_chunk(mono)
  if resampler is None:
    raise InputError(
      f"{path} has an empty sound track: use a file with speech."
    )
  yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def fit_length(
  waveform: Float[np.ndarray, "n"], num_samples: int
) -> Float[np.ndarray, "m"]:
  """Cuts a waveform or pads it with silence at its end."""
  short = max(0, num_samples - len(waveform))
  return np.pad(waveform[:num_samples], (0, short))
