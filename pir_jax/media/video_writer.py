"""Writes video files, whole or not at all.

h height, w width, c sound channels, n samples.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.media import audio, encoders, frames, whole_file
from pir_jax.types import InputError

COMMENT = "AI-generated: face reenacted by pir_jax"


class VideoWriter:
  """Writes RGB frames and the sound of a file as an H.264 and AAC mp4.

  Use as a context manager. The file is there when the body ends; if the body
  raises, nothing stays (`whole_file`).

  An odd width or height grows by one pixel, see `encoders`. The sound keeps its
  rate and is cut, or padded with silence, to the video's end.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    size: tuple[int, int],
    frame_rate: Fraction,
    *,
    audio: str | pathlib.Path | None = None,
    comment: str = COMMENT,
    colors: tuple[int, int] = (frames.BT709, frames.BT709),
    finish: Callable[[pathlib.Path], None] | None = None,
  ):
    """Prepares a writer; the file is opened on entering the context.

    Args:
      path: ends in .mp4; an existing file is replaced.
      size: width and height of the frames in pixels.
      frame_rate: exact (30000/1001, not 29.97).
      audio: file whose sound is added, from its time 0.
      comment: metadata of the file, which marks it as synthetic.
      colors: primaries and transfer of the frames, see `frames.colors_of`.
      finish: is called with the finished file before it gets its name.

    Raises:
      InputError: the name does not end in .mp4, or cannot be written.
    """
    whole_file.check(path, (".mp4",))
    self.path = pathlib.Path(path)
    self.size, self.frame_rate = size, Fraction(frame_rate)
    self.audio, self.comment, self.colors = audio, comment, colors
    self._finish = finish

  @property
  def num_frames(self) -> int:
    """Frames written so far."""
    return self._pictures.num_frames

  def __enter__(self) -> "VideoWriter":
    self._whole = contextlib.ExitStack()
    self._part = self._whole.enter_context(whole_file.written(self.path))
    self._whole.callback(self._close)
    try:
      self._open()
    except BaseException:
      self._whole.__exit__(*sys.exc_info())
      raise
    return self

  def _open(self) -> None:
    self._sound = None
    if self.audio is not None:
      self._sound = _SoundFeed(self.audio)  # before the file: it may raise
    self._container = av.open(
      "file:" + str(self._part.absolute()),
      "w",
      format="mp4",
      options={"movflags": "+faststart"},
    )
    self._container.metadata["comment"] = self.comment
    self._pictures = encoders.PictureEncoder(
      self._container, self.size, self.frame_rate, self.colors
    )
    if self._sound is not None:
      self._sound.add_to(self._container)

  def _close(self) -> None:
    container = getattr(self, "_container", None)
    if container is not None:
      # On a full disk its last bytes fail too.
      with contextlib.suppress(OSError):
        container.close()
    if getattr(self, "_sound", None) is not None:
      self._sound.close()

  def write(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Adds the next frame.

    Raises:
      ValueError: the frame is not of the size the writer was made for.
    """
    self._pictures.write(image)
    if self._sound is not None:
      self._sound.write_until(self.num_frames / self.frame_rate)

  def __exit__(self, kind, value, traceback) -> None:
    with self._whole:
      if kind is not None:
        raise value
      if not self.num_frames:
        raise InputError(f"{self.path} would hold no frame: nothing to write.")
      self._pictures.finish()
      if self._sound is not None:
        self._sound.finish()
      self._container.close()
      if self._finish is not None:
        self._finish(self._part)


class _SoundFeed:
  """Encodes a file's sound in step with the video."""

  def __init__(self, path: str | pathlib.Path):
    self._blocks: Iterator[tuple[int, np.ndarray]] = audio.read_sound(path)
    first = next(self._blocks, None)
    if first is None:
      raise InputError(
        f"{path} has an empty sound track: use a file with speech."
      )
    self._source_rate, self._held = first
    self._channels = min(2, self._held.shape[1])
    self._num_samples = 0  # Passed to the encoder.

  def add_to(self, container) -> None:
    self._encoder = encoders.SoundEncoder(
      container, self._source_rate, self._channels
    )

  def _take(self, count: int) -> Float[np.ndarray, "n c"]:
    """Returns the next `count` samples, silence after the sound's end."""
    parts, missing = [], count
    while missing > 0:
      if not len(self._held):
        _, self._held = next(
          self._blocks,
          (0, np.zeros((missing, self._held.shape[1]), np.float32)),
        )
      parts.append(self._held[:missing])
      self._held = self._held[missing:]
      missing -= len(parts[-1])
    return np.concatenate(parts)

  def write_until(self, time: Fraction) -> None:
    """Encodes the sound before a time in seconds."""
    count = round(time * self._source_rate) - self._num_samples
    if count <= 0:
      return
    self._encoder.write(self._take(count))
    self._num_samples += count

  def finish(self) -> None:
    self._encoder.finish()
    self.close()

  def close(self) -> None:
    self._blocks.close()
