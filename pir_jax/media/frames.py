"""Decoded frames converted to RGB: upright, whole, square pixels, SDR.

h height, w width as shown.
"""

import collections
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from pir_jax.types import InputError

# FFmpeg's quicker conversion between RGB and YUV darkens by one grey level.
EXACT_COLOURS = int(
  Interpolation.BICUBIC
  | Interpolation.ACCURATE_RND
  | Interpolation.FULL_CHR_H_INT
  | Interpolation.FULL_CHR_H_INP
)
# Pixels this little wider or taller than square stay as they are: a head of
# 200 pixels changes by one.
SQUARE_ENOUGH = 0.005
# Numbers of ITU-T H.273, tables 2 to 4.
BT709, _UNSPECIFIED, _RESERVED, _YCGCO = 1, 2, 3, 8
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}
_HDR = {16: "PQ", 18: "HLG"}
_WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_HD = 720  # Rows from which untagged colours are BT.709 by convention.


def _unknown_side_data(kind: type, number: int) -> SideData:
  member = object.__new__(kind)
  member._name_, member._value_ = f"UNKNOWN_{number}", number
  return member


# FFmpeg knows kinds, such as EXIF, at which PyAV 18 fails with all the others.
SideData._missing_ = classmethod(_unknown_side_data)


class Shape(NamedTuple):
  """The conversion from stored to displayed pixels.

  Attributes:
    width, height: of the stored picture once its pixels are square.
    transposed: rows become columns, before the mirroring.
    mirror_rows, mirror_columns: the order of rows (columns) is reversed.
  """

  width: int
  height: int
  transposed: bool
  mirror_rows: bool
  mirror_columns: bool

  @property
  def shown(self) -> tuple[int, int]:
    """Width and height as displayed."""
    size = (self.width, self.height)
    return size[::-1] if self.transposed else size

  def turn(self, image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """Returns the image upright."""
    if self.transposed:
      image = image.transpose(1, 0, 2)
    if self.mirror_rows:
      image = image[::-1]
    if self.mirror_columns:
      image = image[:, ::-1]
    return np.ascontiguousarray(image)


def shape_of(frame, stream) -> Shape:
  """Reads a frame's display matrix and pixel shape.

  Pixels become square by enlarging, so that none is lost.
  """
  width, height = frame.width, frame.height
  aspect = stream.sample_aspect_ratio or Fraction(1)
  if aspect > 1 + SQUARE_ENOUGH:
    width = round(width * aspect)
  elif 0 < aspect < 1 - SQUARE_ENOUGH:
    height = round(height / aspect)
  # ISO/IEC 14496-12, 8.3.2: x' = a x + c y, y' = b x + d y.
  a, b, c, d = 1, 0, 0, 1
  if SideData.DISPLAYMATRIX in frame.side_data.keys():
    matrix = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32)
    a, b, c, d = (int(v) for v in matrix[[0, 1, 3, 4]])
  transposed = abs(b) + abs(c) > abs(a) + abs(d)
  x, y = (c, b) if transposed else (a, d)
  return Shape(width, height, transposed, y < 0, x < 0)


def remarks(frame, stream) -> tuple[str, ...]:
  """Lists the conversions that a user should know of; most videos have none."""
  notes = []
  if frame.interlaced_frame:
    notes.append("interlaced: fields were joined to whole frames")
  aspect = stream.sample_aspect_ratio or Fraction(1)
  if aspect > 0 and abs(aspect - 1) > SQUARE_ENOUGH:
    notes.append(
      f"pixels of {aspect.numerator}:{aspect.denominator}: made square"
    )
  if frame.color_trc in _HDR:
    notes.append(f"HDR ({_HDR[frame.color_trc]}): tone-mapped to BT.709")
  elif frame.color_primaries in _WIDE:
    wide = _WIDE[frame.color_primaries]
    notes.append(f"wide colours ({wide}): converted to BT.709")
  if any(component.is_alpha for component in frame.format.components):
    notes.append("transparency: left out, the colours beneath it are read")
  return tuple(notes)


def _is_wide(frame) -> bool:
  return frame.color_trc in _HDR or frame.color_primaries in _WIDE


def colors_of(frame) -> tuple[int, int]:
  """Returns primaries and transfer of the RGB that is read, as in H.273."""
  if _is_wide(frame):
    return BT709, BT709
  usual = BT709 if frame.height >= _HD else _UNSPECIFIED
  unknown = (0, _UNSPECIFIED, _RESERVED)
  tags = frame.color_primaries, frame.color_trc
  return tuple(usual if tag in unknown else int(tag) for tag in tags)


def standard_range(
  frames: Iterator[tuple[Fraction, object]], stream
) -> Iterator[tuple[Fraction, object]]:
  """Tone-maps HDR, and converts wide colours, to BT.709; others pass.

  FFmpeg's own mapping for viewers, "perceptual".
  """
  graph = kind = None
  for time, frame in frames:
    if _is_wide(frame):
      now = (frame.width, frame.height, frame.format.name, frame.color_trc)
      if now != kind:
        to_standard = (
          "scale",
          "out_transfer=bt709:out_primaries=bt709:intent=perceptual",
        )
        graph = _graph(frame, stream, to_standard, ("format", "gbrp"))
        kind = now
      graph.push(frame)
      frame = graph.pull()
    yield time, frame


def to_rgb(
  frame, shape: Shape, path, reformatter: VideoReformatter
) -> UInt8[np.ndarray, "h w 3"]:
  """Converts a frame to 8-bit RGB, scaled and turned by `shape`.

  Args:
    frame: of the video.
    shape: its conversion to displayed pixels.
    path: of the video.
    reformatter: of a video keeps what alike frames need.

  Raises:
    InputError: its colours cannot be converted.
  """
  space = frame.colorspace
  if space == _YCGCO:
    raise InputError(
      f"{path} stores its colours as YCgCo, which cannot be converted here:"
      " convert it to H.264 first."
    )
  source = None
  if space in (_UNSPECIFIED, _RESERVED):
    # Untagged HD is BT.709 by every player's convention; FFmpeg would take
    # BT.601.
    source = "itu709" if frame.height >= _HD else "itu601"
  elif space not in _CONVERTIBLE:
    source = "bt2020"  # Its relatives; FFmpeg has no matrix for them.
  if frame.format.is_rgb:
    source = None
  # To planes first: the same, bit for bit, in less than half the time.
  converted = reformatter.reformat(
    frame,
    format="rgb24" if frame.format.is_rgb else "gbrp",
    width=shape.width,
    height=shape.height,
    src_colorspace=source,
    interpolation=EXACT_COLOURS,
    threads=1,
  )
  return shape.turn(converted.to_ndarray(channel_last=True))


def progressive(
  frames: Iterator[tuple[Fraction, object]], stream
) -> Iterator[tuple[Fraction, object]]:
  """Deinterlaces frames; their number and times stay."""
  graph = kind = None
  times = collections.deque()
  for time, frame in frames:
    if graph is None and not frame.interlaced_frame:
      yield time, frame
      continue
    now = (frame.width, frame.height, frame.format.name)
    if now != kind:
      if graph is not None:
        yield from _pulled(graph, None, times)
      # Frames that are whole already pass unchanged.
      bwdif = ("bwdif", "mode=send_frame:deint=interlaced")
      graph, kind = _graph(frame, stream, bwdif), now
    times.append(time)
    yield from _pulled(graph, frame, times)
  if graph is not None:
    yield from _pulled(graph, None, times)


def _graph(frame, stream, *filters: tuple[str, str]) -> av.filter.Graph:
  """Chains filters, each a name and its options, for frames like this one."""
  graph = av.filter.Graph()
  source = graph.add_buffer(
    width=frame.width,
    height=frame.height,
    format=frame.format,
    time_base=stream.time_base,
  )
  chain = [graph.add(*each) for each in filters]
  graph.link_nodes(source, *chain, graph.add("buffersink")).configure()
  return graph


def _pulled(graph, frame, times) -> Iterator[tuple[Fraction, object]]:
  """Pushes a frame, or the end, and yields what is ready."""
  graph.push(frame)
  while True:
    try:
      ready = graph.pull()
    except (BlockingIOError, EOFError):
      return
    yield times.popleft(), ready
