"""Sound of a file, block by block, on the clock of its video.

c channels, n samples. Time 0 is the first video frame (the first sample, where
there is no picture).
"""

import sys
from collections.abc import Iterator
from fractions import Fraction

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
  with containers.open_media(path) as container:
    stream = containers.sound_stream(container, path)
    zero = None
    if containers.moving(container):
      zero = containers.time_zero(path)
    # In AVI the times of packed sound are guesses; it has no holes.
    gapless = container.format.name == "avi"
    done = 0  # samples yielded so far
    for rate, start, block in _blocks(container, stream, path, most_channels):
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


def _blocks(container, stream, path, most_channels):
  """Yields (sample rate, time or None, block) in the first frame's layout."""
  first = kind = resampler = weights = start = None

  def parts(frame):
    nonlocal start
    for part in resampler.resample(frame):
      block = part.to_ndarray().reshape(-1, len(names))
      if weights is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # The reader looks.
          block = block @ weights
      yield first.sample_rate, start, block
      start = None  # What else there is of this frame follows on.

  for time, frame in containers.decode(container, stream, path):
    if first is None:
      first = frame
      names = [channel.name for channel in frame.layout.channels]
      if len(names) > most_channels:
        weights = mono_weights(names)[:, None]
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
