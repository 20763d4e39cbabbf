"""Writes a video while it is made, into a pipe that somebody reads.

h height, w width, n samples.
"""

import contextlib
import io
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.media import encoders, frames
from pir_jax.types import InputError

FORMATS = ("mp4", "raw")
# A fragment is whole when it is written: players show it at once.
_FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
_FRAGMENT_SECONDS = 0.2


class LiveWriter:
  """A fragmented mp4 of pictures and sound, or pictures as they are.

  "raw" is RGB, 8 bits, one frame after another, without sound: what FFmpeg
  reads as `-f rawvideo -pix_fmt rgb24`. Use as a context manager.
  """

  def __init__(
    self,
    file: io.IOBase,
    size: tuple[int, int],
    frame_rate: Fraction,
    *,
    sample_rate: int,
    kind: str = "mp4",
    comment: str = "",
    colors: tuple[int, int] = (frames.BT709, frames.BT709),
  ):
    """Prepares a writer.

    Args:
      file: open for writing bytes; it need not seek, and is left open.
      size: width and height of the frames in pixels.
      frame_rate: exact.
      sample_rate: of the sound, which has one channel.
      kind: one of FORMATS.
      comment: metadata of the mp4.
      colors: primaries and transfer, see `frames.colors_of`.

    Raises:
      InputError: there is no such format.
    """
    if kind not in FORMATS:
      raise InputError(f"format={kind} must be one of {', '.join(FORMATS)}.")
    self._file, self._kind = file, kind
    self._args = (size, Fraction(frame_rate), colors)
    self._sample_rate, self._comment = sample_rate, comment

  def __enter__(self) -> "LiveWriter":
    if self._kind == "raw":
      return self
    size, rate, colors = self._args
    self._container = av.open(
      self._file,
      "w",
      format="mp4",
      options={
        "movflags": _FRAGMENTS,
        "frag_duration": str(round(1e6 * _FRAGMENT_SECONDS)),
        "flush_packets": "1",
      },
    )
    self._container.metadata["comment"] = self._comment
    second = str(max(1, round(rate)))
    self._pictures = encoders.PictureEncoder(
      self._container, size, rate, colors, tune="zerolatency", g=second
    )
    self._sound = encoders.SoundEncoder(self._container, self._sample_rate)
    return self

  def write(
    self, image: UInt8[np.ndarray, "h w 3"], sound: Float[np.ndarray, "n"]
  ) -> None:
    """Adds a frame and the sound that goes with it."""
    if self._kind == "raw":
      self._file.write(np.ascontiguousarray(image).tobytes())
      return
    self._pictures.write(image)
    self._sound.write(sound[:, None])

  def __exit__(self, kind, value, traceback) -> None:
    if self._kind == "raw":
      return
    if kind is None:
      self._pictures.finish()
      self._sound.finish()
      self._container.close()
      return
    # Whoever read may be gone.
    with contextlib.suppress(OSError, av.error.FFmpegError):
      self._container.close()
