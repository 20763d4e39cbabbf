"""Writes video files, whole or not at all.

h height, w width, c sound channels, n samples.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.media import audio, frames, whole_file
from pir_jax.types import InputError

COMMENT = "AI-generated: face reenacted by pir_jax"
QUALITY = "16"  # x264's crf: hard to tell from the source.
# What AAC allows (ISO/IEC 14496-3, table 1.18); other rates are resampled.
AAC_RATES = (
  *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
  *(22050, 16000, 12000, 11025, 8000, 7350),
)
AAC_FRAME = 1024  # samples


class VideoWriter:
  """Writes RGB frames and the sound of a file as an H.264 and AAC mp4.

  Use as a context manager. The file is there when the body ends; if the body
  raises, nothing stays (`whole_file`).

  An odd width or height grows by one pixel (the edge is repeated), because
  4:2:0 video, the only kind every player supports, has even sides. The sound
  keeps its rate and is cut, or padded with silence, to the video's end.

  Attributes:
    num_frames: written so far.
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
  ):
    """Prepares a writer; the file is opened on entering the context.

    Args:
      path: ends in .mp4; an existing file is replaced.
      size: width and height of the frames in pixels.
      frame_rate: exact (30000/1001, not 29.97).
      audio: file whose sound is added, from its time 0.
      comment: metadata of the file, which marks it as synthetic.
      colors: primaries and transfer of the frames, see `frames.colors_of`.

    Raises:
      InputError: the name does not end in .mp4, or cannot be written.
    """
    whole_file.check(path, (".mp4",))
    self.path = pathlib.Path(path)
    self.size, self.frame_rate = size, Fraction(frame_rate)
    self.audio, self.comment, self.colors = audio, comment, colors
    self.num_frames = 0

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
    stream = self._container.add_stream(
      "libx264",
      rate=self.frame_rate,
      options={"crf": QUALITY, "preset": "veryfast"},
    )
    width, height = self.size
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt = "yuv420p"
    # Tagged, so that no player has to guess.
    context = stream.codec_context
    context.colorspace, context.color_range = frames.BT709, 1  # Studio range.
    context.color_primaries, context.color_trc = self.colors
    context.time_base = 1 / self.frame_rate
    self._stream = stream
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
    width, height = self.size
    if image.shape[:2] != (height, width):
      raise ValueError(
        f"a frame of {image.shape[1]}x{image.shape[0]} cannot go into a"
        f" {width}x{height} video: resize it first"
      )
    if width % 2 or height % 2:
      image = np.pad(
        image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"
      )
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    frame = frame.reformat(
      format="yuv420p",
      dst_colorspace="itu709",
      dst_color_range="MPEG",
      interpolation=frames.EXACT_COLOURS,
    )
    frame.pts, frame.time_base = self.num_frames, 1 / self.frame_rate
    self._container.mux(self._stream.encode(frame))
    self.num_frames += 1
    if self._sound is not None:
      self._sound.write_until(self.num_frames / self.frame_rate)

  def __exit__(self, kind, value, traceback) -> None:
    with self._whole:
      if kind is not None:
        raise value
      if not self.num_frames:
        raise InputError(f"{self.path} would hold no frame: nothing to write.")
      self._container.mux(self._stream.encode(None))
      if self._sound is not None:
        self._sound.finish()
      self._container.close()


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
    self._rate = self._source_rate
    if self._rate not in AAC_RATES:
      self._rate = 48000
    self._num_samples = 0  # passed to the encoder, at the source's rate

  def add_to(self, container) -> None:
    layout = "mono" if self._channels == 1 else "stereo"
    self._container = container
    self._stream = container.add_stream(
      "aac", rate=self._rate, options={"b": "192k"}
    )
    self._stream.layout = layout
    self._resampler = av.AudioResampler(
      format="fltp", layout=layout, rate=self._rate, frame_size=AAC_FRAME
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
    block = self._take(count)
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(block.T.astype(np.float32)),
      format="fltp",
      layout="mono" if self._channels == 1 else "stereo",
    )
    frame.sample_rate = self._source_rate
    frame.pts, frame.time_base = (
      self._num_samples,
      Fraction(1, self._source_rate),
    )
    self._num_samples += count
    self._encode(self._resampler.resample(frame))

  def _encode(self, frames) -> None:
    for frame in frames:
      self._container.mux(self._stream.encode(frame))

  def finish(self) -> None:
    self._encode(self._resampler.resample(None))
    self._container.mux(self._stream.encode(None))
    self.close()

  def close(self) -> None:
    self._blocks.close()
