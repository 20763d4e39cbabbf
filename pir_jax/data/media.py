"""Video and sound files, read as streams of arrays.

h height, w width, c sound channels, n samples. Time 0 is the first video frame
(the first sample, where there is no picture); times are exact fractions.
"""

import array
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import soxr
from av.video.reformatter import Interpolation
from jaxtyping import Float, UInt8

from pir_jax.types import SAMPLE_RATE, InputError

Path = str | pathlib.Path

# A file that ends this many seconds before the end it declares was cut short.
TOLERATED_LOSS = 0.5
# FFmpeg's quicker conversion between RGB and YUV darkens by one grey level.
EXACT_COLOURS = int(
  Interpolation.BICUBIC
  | Interpolation.ACCURATE_RND
  | Interpolation.FULL_CHR_H_INT
  | Interpolation.FULL_CHR_H_INP
)


class VideoInfo(NamedTuple):
  """What a video file says of itself.

  Attributes:
    name: of the file, without its folder.
    sha256: of the file's bytes.
    width, height: as shown, after rotation.
    rate: mean frames a second.
    duration: seconds the picture lasts.
    num_frames: as declared; None where the container does not say.
    sound_rate: samples a second; None where there is no sound.
  """

  name: str
  sha256: str
  width: int
  height: int
  rate: Fraction
  duration: float
  num_frames: int | None
  sound_rate: int | None

  @property
  def has_audio(self) -> bool:
    return self.sound_rate is not None


def _existing(path: Path) -> pathlib.Path:
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
    InputError: no such file, or nothing that can be decoded.
  """
  path = _existing(path)
  try:
    # "file:" keeps names such as "a:b.mp4" from being read as addresses.
    return av.open("file:" + os.fspath(path.absolute()))
  except (av.error.FFmpegError, OSError) as error:
    raise InputError(
      f"{path} cannot be read as video or sound ({_reason(error)}): it is"
      " damaged, cut short or of another kind."
    ) from error


def _reason(error: Exception) -> str:
  return getattr(error, "strerror", None) or str(error)


def _moving(container) -> list:
  """Video streams, but not the cover picture that songs come with."""
  cover = av.stream.Disposition.attached_pic
  return [s for s in container.streams.video if not s.disposition & cover]


def _video_stream(container, path: Path):
  streams = _moving(container)
  if not streams:
    raise InputError(f"{path} has no picture: give a video file.")
  stream = streams[0]
  stream.thread_type = "AUTO"
  return stream


def _decode(container, stream, path: Path) -> Iterator:
  """Decoded frames of a stream; a broken packet is an InputError."""
  count = 0
  try:
    for frame in container.decode(stream):
      yield frame
      count += 1
  except av.error.FFmpegError as error:
    raise InputError(
      f"{path} is damaged after {count} {stream.type} frames"
      f" ({_reason(error)}): convert or copy it again."
    ) from error


def _frame_time(frame, path: Path) -> Fraction:
  if frame.pts is None or frame.time_base is None:
    raise InputError(
      f"{path} has frames without a time: convert it to mp4 first."
    )
  return frame.pts * frame.time_base


def _time_zero(path: Path) -> Fraction:
  """Container time of the first video frame."""
  with open_media(path) as container:
    stream = _video_stream(container, path)
    for frame in _decode(container, stream, path):
      return _frame_time(frame, path)
  raise InputError(f"{path} holds no frame: it is damaged or cut short.")


def digest(path: Path) -> str:
  """SHA-256 of a file's bytes; InputError where there is no such file."""
  with open(_existing(path), "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def probe(path: Path) -> VideoInfo:
  """Reads what a video file says of itself, decoding one frame.

  Raises:
    InputError: the file is missing, not a video, or has no frame.
  """
  with open_media(path) as container:
    stream = _video_stream(container, path)
    frame = next(_decode(container, stream, path), None)
    if frame is None:
      raise InputError(f"{path} holds no frame: it is damaged or cut short.")
    width, height = frame.width, frame.height
    if frame.rotation % 180:
      width, height = height, width
    rate = _rate(stream)
    if not rate:
      raise InputError(
        f"{path} does not tell its frame rate: convert it to mp4 first."
      )
    if stream.duration is not None:
      seconds = float(stream.duration * stream.time_base)
    else:
      seconds = (container.duration or 0) / av.time_base
    sounds = container.streams.audio
    return VideoInfo(
      name=pathlib.Path(path).name,
      sha256=digest(path),
      width=width,
      height=height,
      rate=Fraction(rate),
      duration=seconds,
      num_frames=stream.frames or None,
      sound_rate=sounds[0].rate if sounds else None,
    )


def _rate(stream) -> Fraction | None:
  """Frames a second: the exact one of a steady video, else the mean."""
  mean, steady = stream.average_rate, stream.guessed_rate
  # A last frame that is cut short moves the mean of a steady video a little.
  if mean and steady and abs(steady / mean - 1) < 0.02:
    return steady
  return mean or steady


def _to_rgb(frame) -> UInt8[np.ndarray, "h w 3"]:
  # Untagged HD is BT.709 by the convention every player follows; FFmpeg itself
  # would take BT.601.
  unspecified = frame.colorspace == 2
  source = "itu709" if unspecified and frame.height >= 720 else None
  image = frame.to_ndarray(
    format="rgb24", src_colorspace=source, interpolation=EXACT_COLOURS
  )
  turns = round(frame.rotation / 90) % 4
  return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def read_frames(
  path: Path, *, start: float = 0.0
) -> Iterator[tuple[Fraction, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (time, RGB frame) in the order of showing, upright.

  One frame is in memory at a time. Frames that repeat a time are dropped.

  Args:
    path: of the video.
    start: seconds of the first frame wanted; earlier ones are left out.

  Raises:
    InputError: the file is missing, not a video, damaged, or ends long before
      the end it declares.
  """
  with open_media(path) as container:
    stream = _video_stream(container, path)
    zero = last = None
    if start > 0:
      zero = _time_zero(path)
      _seek(container, stream, zero + Fraction(start))
    for frame in _decode(container, stream, path):
      now = _frame_time(frame, path)
      zero = now if zero is None else zero
      if last is not None and now <= last:
        continue
      last = now
      if now - zero < start - 1e-3:  # Times went through floats.
        continue
      yield now - zero, _to_rgb(frame)
    if last is None:
      raise InputError(f"{path} holds no frame: it is damaged or cut short.")
    if stream.duration is not None:
      start = (stream.start_time or 0) * stream.time_base
      declared = float(start + stream.duration * stream.time_base - zero)
      shown = float(last - zero)
      if declared - shown > TOLERATED_LOSS + _longest_frame(stream):
        raise InputError(
          f"{path} was cut short: it declares {declared:.1f} s and its frames"
          f" end at {shown:.1f} s; copy it again."
        )


def _seek(container, stream, time: Fraction) -> None:
  """Goes to the key frame at or before a container time."""
  # A little early: reordered frames of the group before may be cut off.
  place = int((time - 1) / stream.time_base)
  container.seek(max(place, stream.start_time or 0), stream=stream)


def _longest_frame(stream) -> float:
  rate = stream.average_rate or stream.guessed_rate
  return float(1 / rate) if rate else 0.0


def read_sound(
  path: Path,
) -> Iterator[tuple[int, Float[np.ndarray, "n c"]]]:
  """Yields (rate, block) of a file's sound from the time of its first frame.

  Silence stands where the sound starts late or has a hole; what comes before
  the picture is dropped. Blocks are float32 in about [-1, 1].

  Raises:
    InputError: the file is missing, damaged or has no sound.
  """
  with open_media(path) as container:
    if not container.streams.audio:
      raise InputError(f"{path} has no sound: give a file with speech.")
    zero = _time_zero(path) if _moving(container) else None
    stream = container.streams.audio[0]
    resampler, kind = av.AudioResampler(format="flt"), None
    done = 0  # samples given so far
    for frame in _decode(container, stream, path):
      rate = frame.sample_rate
      now = (rate, frame.layout.name, frame.format.name)
      kind = kind or now
      if now != kind:
        raise InputError(
          f"{path} changes its sample rate or channels midway, at"
          f" {done / kind[0]:.1f} s: convert it to one kind of sound."
        )
      ahead = 0
      if frame.pts is not None:
        start = frame.pts * frame.time_base
        zero = start if zero is None else zero
        ahead = round((start - zero) * rate) - done
      channels = len(frame.layout.channels)
      # Containers round times to milliseconds: only larger holes are real.
      if ahead > (rate // 50 if done else 0):
        yield rate, np.zeros((ahead, channels), np.float32)
        done += ahead
        ahead = 0
      for part in resampler.resample(frame):
        block = part.to_ndarray().reshape(-1, channels)
        if not done and ahead < 0:
          block, ahead = block[-ahead:], min(0, ahead + len(block))
        left = _sound_end(container, stream, zero, rate) - done
        block = block[: max(0, left)]
        done += len(block)
        if len(block):
          yield rate, block


def _sound_end(container, stream, zero: Fraction, rate: int) -> int:
  """Sample at which the sound ends; what follows is the encoder's padding.

  Only mp4 tells it exactly; elsewhere the declared end may be a guess.
  """
  if "mp4" not in container.format.name or stream.duration is None:
    return sys.maxsize
  end = ((stream.start_time or 0) + stream.duration) * stream.time_base
  return max(0, round((end - zero) * rate))


def read_audio(path: Path) -> Float[np.ndarray, "n"]:
  """A file's sound, mono at SAMPLE_RATE, from the time of its first frame.

  Takes little more memory than the result itself, 3.7 MiB a minute.

  Raises:
    InputError: the file is missing, damaged, has no sound, or has samples that
      are not numbers.
  """
  # Grows in place by sixteenths; to join a list of blocks takes twice the size.
  samples = array.array("f")
  for block in _mono(path):
    samples.frombytes(block.tobytes())
  return np.frombuffer(samples, np.float32)


def stream_audio(path: Path, block: int) -> Iterator[Float[np.ndarray, "n"]]:
  """Yields what `read_audio` returns, `block` samples at a time.

  The last block may be shorter, and is not empty.

  Raises:
    InputError: as `read_audio`, when the fault is met.
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
  """Blocks of any length, mono at SAMPLE_RATE."""
  resampler = None
  for rate, block in read_sound(path):
    if resampler is None:
      resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    with np.errstate(over="ignore", invalid="ignore"):  # Refused below.
      mono = block.mean(1)
    if not np.all(np.isfinite(mono)):
      raise InputError(
        f"{path} has samples that are not numbers: export the sound again."
      )
    yield resampler.resample_chunk(mono)
  if resampler is None:
    raise InputError(f"{path} has an empty sound track: give speech.")
  yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def fit_length(
  waveform: Float[np.ndarray, "n"], num_samples: int
) -> Float[np.ndarray, "m"]:
  """Cuts a waveform or pads it with silence at its end."""
  short = max(0, num_samples - len(waveform))
  return np.pad(waveform[:num_samples], (0, short))
