"""Sound of a file, block by block, on the clock of its video.

c channels, n samples. Time 0 is the first video frame (the first sample, where
there is no picture).
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float

from pir_jax.media import containers
from pir_jax.media.containers import Path

# Weights of the channels in the mix, after ITU-R BS.775-3 (annex 4, mono):
# speech is in the centre, and the bass loudspeaker is left out.
_CENTRE = {"FC": 1.0, "LFE": 0.0, "LFE2": 0.0}
_FRONT = {"FL", "FR", "FLC", "FRC", "DL", "DR", "WL", "WR"}
_FRONT_SHARE, _BACK_SHARE = 0.7071, 0.5
# Seconds by which sound may drift from its timestamps before it is corrected:
# containers round them to milliseconds, and each correction is audible.
LARGEST_SLIP = Fraction(1, 100)
# Of channels that have nothing in common the powers add up; a mix so far below
# has lost speech to a channel of opposite sign.
_CANCELLED = 10 ** (-9 / 10)
_LOOK = 30.0  # Seconds of sound by which channels are compared.
_SILENT = 1e-7  # Mean square; -70 dB of full scale.
_OVER = 8.0  # Of full scale: louder than any mixer's overshoot.
_WORDS = (15, 23, 31)  # Bits of the integers that such samples once were.
# Of these, FFmpeg knows how long the sound is to be; of others it guesses.
_DECLARING = ("flac", "matroska", "mp4", "wav", "mp3")
_TAGS = (b"Xing", b"Info", b"VBRI")  # Of an mp3 that counts its frames.


class Mix(NamedTuple):
  """How a file's samples become sound.

  Attributes:
    weights: of its channels, in one; they sum to 1.
    scale: of the samples.
    remarks: what a user should know of it.
  """

  weights: Float[np.ndarray, "c"]
  scale: float
  remarks: tuple[str, ...]


def mono_weights(channels: list[str]) -> Float[np.ndarray, "c"]:
  """Returns mono mixing weights for FFmpeg's channel names; they sum to 1.

  One or two channels, and channels without a position, count equally.
  """
  if len(channels) <= 2 or not set(channels) & (_FRONT | _CENTRE.keys()):
    weights = np.ones(len(channels))
  else:
    weights = np.array(
      [
        _CENTRE.get(name, _FRONT_SHARE if name in _FRONT else _BACK_SHARE)
        for name in channels
      ]
    )
  return (weights / weights.sum()).astype(np.float32)


def examine(path: Path) -> Mix:
  """Looks through a file's sound for channels that cancel, and for its range.

  Raises:
    InputError: as `read_sound`.
  """
  with containers.open_media(path) as container:
    stream = containers.sound_stream(container, path)
    # Only these may hold more than 1, and are quickly read to their end.
    whole = stream.codec_context.name.startswith(("pcm_f", "pcm_d"))
    names, seconds, peak = [], 0.0, 0.0
    power = mixed = 0.0
    num_samples = 0
    for first, _, block in _blocks(container, stream, path):
      names = names or [channel.name for channel in first.layout.channels]
      weights = mono_weights(names)
      peak = max(peak, float(np.abs(block).max(initial=0.0)))
      with np.errstate(over="ignore", invalid="ignore"):  # The reader looks.
        squares = np.mean(np.square(block, dtype=np.float64), 0)
        if len(block) and squares.max() > _SILENT:
          power = power + len(block) * squares
          num_samples += len(block)
          mix = np.square(block @ weights, dtype=np.float64)
          mixed += float(np.sum(mix))
          seconds += len(block) / first.sample_rate
      if seconds > _LOOK and not whole:
        break
  if not names:
    return Mix(np.ones(1, np.float32), 1.0, ())
  scale, remarks = 1.0, []
  # Of all of it: a single click may be far above full scale.
  loud = num_samples and np.max(power) / num_samples > 1
  if loud and peak > _OVER and (bits := [b for b in _WORDS if peak <= 2**b]):
    scale = 2.0 ** -bits[0]
    remarks.append(
      f"has samples up to {peak:.0f}, where 1 is the loudest: they are taken "
      f"as of {bits[0] + 1} bits"
    )
  power = power * weights**2
  if mixed < _CANCELLED * np.sum(power):
    weights = np.eye(len(names), dtype=np.float32)[int(np.argmax(power))]
    remarks.append(
      "has channels that cancel each other: speech is taken from the loudest"
    )
  return Mix(weights, scale, tuple(remarks))


def missing_seconds(path: Path, seconds: float) -> float:
  """Returns by how much a file's sound is shorter than it declares.

  Args:
    path: of a sound file.
    seconds: that could be read.

  Returns:
    0 also where it declares nothing that can be relied on.
  """
  with open(containers.existing(path), "rb") as file:
    head = file.read(2**20)
  with containers.open_media(path) as container:
    name, length = container.format.name, container.duration or 0
    stream = containers.sound_stream(container, path)
    bytes_a_second = (stream.codec_context.bit_rate or 0) / 8
  declared = length / av.time_base
  if (
    name == "wav"
    and bytes_a_second
    and (head[:4] == b"RIFF" and head[4:8] != b"\xff" * 4)
  ):
    # FFmpeg takes the size of the file for that of the sound.
    size = int.from_bytes(head[4:8], "little") + 8
    short = size - containers.existing(path).stat().st_size
    declared += max(0, short) / bytes_a_second
  if name == "mp3" and not any(tag in head for tag in _TAGS):
    declared = 0.0
  if not any(kind in name for kind in _DECLARING):
    declared = 0.0
  return max(0.0, declared - seconds)


def read_sound(
  path: Path, *, most_channels: int = 2
) -> Iterator[tuple[int, Float[np.ndarray, "n c"]]]:
  """Yields (sample rate, block) of a file's sound from its first frame's time.

  A late start and holes are filled with silence; samples before the video, and
  overlaps, are dropped. More than `most_channels` are mixed to one. A file that
  changes its rate or channels midway is converted to the first ones. Blocks
  are float32 in about [-1, 1].

  Raises:
    InputError: the file is missing, damaged or has no sound.
  """
  mix = examine(path)
  with containers.open_media(path) as container:
    stream = containers.sound_stream(container, path)
    zero = containers.picture_start(path)
    # In AVI the times of packed sound are guesses; it has no holes.
    gapless = container.format.name == "avi"
    done = 0  # samples yielded so far
    for first, start, block in _blocks(container, stream, path):
      rate = first.sample_rate
      with np.errstate(over="ignore", invalid="ignore"):  # The reader looks.
        if block.shape[1] > most_channels:
          block = block @ mix.weights[:, None]
        if mix.scale != 1:
          block = block * np.float32(mix.scale)
      ahead = 0
      if start is not None:
        zero = start if zero is None else zero
        ahead = round((start - zero) * rate) - done
      if done and (gapless or abs(ahead) <= rate * LARGEST_SLIP):
        ahead = 0
      for silence in _silence(ahead, rate, block.shape[1]):
        yield rate, silence
        done += len(silence)
      if ahead < 0:
        block = block[-ahead:]
      left = _end(container, stream, zero, rate) - done
      block = block[: max(0, left)]
      done += len(block)
      if len(block):
        yield rate, block


def _blocks(container, stream, path):
  """Yields (first frame, time or None, block) in the first frame's layout."""
  first = kind = resampler = start = None

  def parts(frame):
    nonlocal start
    for part in resampler.resample(frame):
      block = part.to_ndarray().reshape(-1, len(first.layout.channels))
      yield first, start, block
      start = None  # What else there is of this frame follows on.

  for time, frame in containers.decode(container, stream, path):
    if first is None:
      first = frame
    now = (frame.sample_rate, frame.layout.name, frame.format.name)
    if now != kind:
      if resampler is not None:
        yield from parts(None)
      resampler = av.AudioResampler("flt", first.layout, first.sample_rate)
      kind = now
    start = time
    yield from parts(frame)
  if resampler is not None:
    start = None
    yield from parts(None)


def _silence(
  count: int, sample_rate: int, channels: int
) -> Iterator[Float[np.ndarray, "n c"]]:
  """Yields `count` samples of silence, a second at a time; none if below 0."""
  for start in range(0, count, sample_rate):
    yield np.zeros((min(sample_rate, count - start), channels), np.float32)


def _end(container, stream, zero: Fraction, sample_rate: int) -> int:
  """Returns the sample at which the sound ends and encoder padding begins.

  Only mp4 declares it exactly; elsewhere it may be a guess.
  """
  if "mp4" not in container.format.name or stream.duration is None:
    return sys.maxsize
  end = ((stream.start_time or 0) + stream.duration) * stream.time_base
  return max(0, round((end - zero) * sample_rate))
