"""Encodes pictures and sound into an open container, as H.264 and AAC.

h height, w width, c sound channels, n samples.
"""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from pir_jax.media import frames

# x264's crf: hard to tell from the source. A slower preset, "veryfast", takes
# twice the time and a fifth less bytes.
QUALITY, _PRESET = "16", "superfast"
# What AAC allows (ISO/IEC 14496-3, table 1.18); other rates are resampled.
AAC_RATES = (
  *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
  *(22050, 16000, 12000, 11025, 8000, 7350),
)
AAC_FRAME = 1024  # samples


class PictureEncoder:
  """RGB frames to H.264.

  An odd width or height grows by one pixel (the edge is repeated), because
  4:2:0 video, the only kind every player supports, has even sides.

  Attributes:
    num_frames: encoded so far.
    stream: of the container.
  """

  num_frames = 0

  def __init__(
    self,
    container: av.container.OutputContainer,
    size: tuple[int, int],
    frame_rate: Fraction,
    colors: tuple[int, int] = (frames.BT709, frames.BT709),
    **options: str,
  ):
    """Adds the stream.

    Args:
      container: open for writing.
      size: width and height of the frames in pixels.
      frame_rate: exact (30000/1001, not 29.97).
      colors: primaries and transfer of the frames, see `frames.colors_of`.
      **options: of x264, beside quality and preset.
    """
    self._container, self._size, self._rate = container, size, frame_rate
    self._reformatter = VideoReformatter()
    stream = container.add_stream(
      "libx264",
      rate=frame_rate,
      options={"crf": QUALITY, "preset": _PRESET} | options,
    )
    width, height = size
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt = "yuv420p"
    # Tagged, so that no player has to guess.
    context = stream.codec_context
    context.colorspace, context.color_range = frames.BT709, 1  # Studio range.
    context.color_primaries, context.color_trc = colors
    context.time_base = 1 / frame_rate
    self.stream = stream

  def write(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Adds the next frame.

    Raises:
      ValueError: the frame is not of the size that was declared.
    """
    width, height = self._size
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
    frame = self._reformatter.reformat(
      frame,
      format="yuv420p",
      dst_colorspace="itu709",
      dst_color_range="MPEG",
      interpolation=frames.EXACT_COLOURS,
      threads=1,
    )
    frame.pts, frame.time_base = self.num_frames, 1 / self._rate
    self._container.mux(self.stream.encode(frame))
    self.num_frames += 1

  def finish(self) -> None:
    """Writes what the encoder holds back."""
    self._container.mux(self.stream.encode(None))


class SoundEncoder:
  """Samples to AAC, at their own rate where that is possible."""

  def __init__(
    self,
    container: av.container.OutputContainer,
    sample_rate: int,
    channels: int = 1,
  ):
    """Adds the stream, of one or two channels."""
    self._container, self._source_rate = container, sample_rate
    self._layout = "mono" if channels == 1 else "stereo"
    rate = sample_rate if sample_rate in AAC_RATES else 48000
    self._stream = container.add_stream("aac", rate=rate, options={"b": "192k"})
    self._stream.layout = self._layout
    self._resampler = av.AudioResampler(
      format="fltp", layout=self._layout, rate=rate, frame_size=AAC_FRAME
    )
    self._num_samples = 0  # At the source's rate.

  def write(self, block: Float[np.ndarray, "n c"]) -> None:
    """Adds samples."""
    if not len(block):
      return
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(block.T.astype(np.float32)),
      format="fltp",
      layout=self._layout,
    )
    frame.sample_rate = self._source_rate
    frame.pts = self._num_samples
    frame.time_base = Fraction(1, self._source_rate)
    self._num_samples += len(block)
    self._encode(self._resampler.resample(frame))

  def finish(self) -> None:
    """Writes what resampler and encoder hold back."""
    self._encode(self._resampler.resample(None))
    self._container.mux(self._stream.encode(None))

  def _encode(self, parts) -> None:
    for frame in parts:
      self._container.mux(self._stream.encode(frame))
