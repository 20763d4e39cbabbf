"""The square window around the head: cut from a frame, and put back.

A window is (centre x, centre y, side) in pixels of the frame, at any fraction;
pixel (0, 0) covers [0, 1] x [0, 1]. A part of a window is the same in shares of
the window's side. r rows, c columns, s side of a window, n of the network's.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from pir_jax.types import Cameras

_BICUBIC = Image.Resampling.BICUBIC
WHOLE = np.float32([0.5, 0.5, 1.0])  # Of a window.


def _resample(
  image: np.ndarray,
  box: tuple[float, ...],
  size: tuple[int, int],
  method: Image.Resampling = _BICUBIC,
) -> np.ndarray:
  """Resamples a box (left, top, right, bottom) of an image to a new size.

  The edge is repeated beyond the image. Antialiased when shrinking.
  """
  rows, cols = image.shape[:2]
  left, top, right, bottom = box
  before = [max(0, math.ceil(-top)), max(0, math.ceil(-left))]
  after = [max(0, math.ceil(bottom - rows)), max(0, math.ceil(right - cols))]
  if any(before + after):
    pad = [(before[0], after[0]), (before[1], after[1])]
    pad += [(0, 0)] * (image.ndim - 2)
    image = np.pad(image, pad, mode="edge")
    left, right = left + before[1], right + before[1]
    top, bottom = top + before[0], bottom + before[0]
  # Pillow copies what it is given: no more than what the filters see.
  first, last = [], []
  for low, high, count in ((left, right, size[0]), (top, bottom, size[1])):
    radius = 2 * max((high - low) / count, 1) + 2
    first.append(max(0, math.floor(low - radius)))
    last.append(math.ceil(high + radius))
  part = image[first[1] : last[1], first[0] : last[0]]
  picture = Image.fromarray(np.ascontiguousarray(part))
  box = tuple(
    edge - start
    for edge, start in zip((left, top, right, bottom), 2 * first, strict=True)
  )
  return np.array(picture.resize(size, method, box))


def crop_window(
  image: UInt8[np.ndarray, "r c *ch"],
  window: Float[np.ndarray, "3"],
  side: int,
  method: Image.Resampling = _BICUBIC,
) -> UInt8[np.ndarray, "s s *ch"]:
  """Resamples the window of a frame to `side` pixels; RGB or grey.

  Args:
    image: the frame.
    window: centre x, centre y, side in its pixels; may cross its edge, which
      is repeated.
    side: of the result.
    method: of resampling.
  """
  x, y, extent = (float(value) for value in window)
  half = extent / 2
  box = (x - half, y - half, x + half, y + half)
  return _resample(image, box, (side,) * 2, method)


def inside(
  window: Float[np.ndarray, "*t 3"], part: Float[np.ndarray, "*t 3"]
) -> Float[np.ndarray, "*t 3"]:
  """Returns a part of a window as a window of the same frame."""
  side = window[..., 2:]
  centre = window[..., :2] + (part[..., :2] - 0.5) * side
  return np.concatenate([centre, part[..., 2:] * side], axis=-1)


def of_part(cameras: Cameras, part: Float[np.ndarray, "*t 3"]) -> Cameras:
  """Returns the cameras of windows' parts."""
  intrinsics = np.array(cameras.intrinsics)
  corner = part[..., :2] - part[..., 2:] / 2
  intrinsics[..., :2, 2] -= corner
  intrinsics[..., :2, :] /= part[..., 2:, None]
  return Cameras(cameras.pose, intrinsics)


def network_window(
  window: UInt8[np.ndarray, "s s 3"],
  mask: Bool[np.ndarray, "s s"],
  side: int,
  part: Float[np.ndarray, "3"] = WHOLE,
) -> tuple[UInt8[np.ndarray, "n n 3"], Bool[np.ndarray, "n n"]]:
  """Resamples a stored window and its mask, or a part, to the network's side.

  The one way to them, in training and in use. Of what lies under the stored
  mask, nothing is outside the mask that is returned.

  Args:
    window: RGB.
    mask: 1 where the network inpaints.
    side: of the result, in pixels.
    part: of the window.
  """
  if len(window) == side and np.array_equal(part, WHOLE):
    return window, mask
  image = resample_part(window, side, part)
  return image, covered(mask, side, part)


def resample_part(
  image: UInt8[np.ndarray, "s s *ch"], side: int, part: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "n n *ch"]:
  """Resamples a part of a stored window."""
  limit = float(len(image))
  x, y, extent = (float(share) * limit for share in part)
  edges = (x - extent / 2, y - extent / 2, x + extent / 2, y + extent / 2)
  box = tuple(min(max(edge, 0.0), limit) for edge in edges)
  return _resample(image, box, (side, side))


def covered(
  mask: Bool[np.ndarray, "s s"], side: int, part: Float[np.ndarray, "3"] = WHOLE
) -> Bool[np.ndarray, "n n"]:
  """Resamples a mask to all pixels whose value any masked pixel enters.

  Bicubic interpolation is meant, antialiased when shrinking.
  """
  if len(mask) == side and np.array_equal(part, WHOLE):
    return mask
  size = len(mask)
  x, y, extent = (float(share) * size for share in part)
  scale = extent / side
  support = 2 * max(scale, 1.0)
  for middle in (y, x):
    centre = middle - extent / 2 + (np.arange(side) + 0.5) * scale
    # Pillow rounds the support's ends to pixels; one more is no harm.
    first = np.clip(np.floor(centre - support), 0, size).astype(int)
    last = np.clip(np.ceil(centre + support), 0, size).astype(int)
    # Eight pixels a byte. What begins at the end is empty.
    bits = np.packbits(mask, axis=1)
    bits = np.concatenate([bits, np.zeros_like(bits[:1])])
    # Between pairs of ends, of which every other is a gap.
    ends = np.stack([first, last], 1).ravel()
    joined = np.bitwise_or.reduceat(bits, ends)[::2]
    joined[first >= last] = 0
    mask = np.unpackbits(joined, axis=1, count=mask.shape[1]).astype(bool).T
  return mask


def shrink(
  image: UInt8[np.ndarray, "s s 3"], side: int
) -> UInt8[np.ndarray, "g g 3"]:
  """Averages over the cells of a coarser grid, without overlap."""
  size = float(len(image))
  return _resample(
    image, (0.0, 0.0, size, size), (side,) * 2, Image.Resampling.BOX
  )


def bounds(
  mask: Bool[np.ndarray, "s s"],
) -> tuple[float, float, float, float]:
  """Returns the box around a mask that is not empty, as shares of its side.

  Returns:
    Left, top, right and bottom.
  """
  columns = np.flatnonzero(mask.any(0))
  rows = np.flatnonzero(mask.any(1))
  edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
  return tuple(float(edge) / len(mask) for edge in edges)


class Placement(NamedTuple):
  """Pixels of a frame that lie in a part of a window.

  Attributes:
    rows, columns: of the frame.
    box: left, top, right and bottom of them, as shares of the window's side.
  """

  rows: slice
  columns: slice
  box: tuple[float, float, float, float]

  def put(
    self, patch: np.ndarray, method: Image.Resampling = _BICUBIC
  ) -> np.ndarray:
    """Resamples the window's content to these pixels."""
    limit = float(len(patch))
    box = tuple(min(max(edge * limit, 0.0), limit) for edge in self.box)
    size = (
      self.columns.stop - self.columns.start,
      self.rows.stop - self.rows.start,
    )
    return _resample(patch, box, size, method)


def placement(
  window: Float[np.ndarray, "3"],
  frame_size: tuple[int, int],
  part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> Placement:
  """Returns the frame's pixels in a window, or in a part of it.

  Args:
    window: centre x, centre y, side in pixels of the frame.
    frame_size: width and height of the frame.
    part: left, top, right and bottom, as shares of the window's side.

  Returns:
    The pixels that lie wholly inside the window and the frame, without those
    that the part does not touch.

  Raises:
    ValueError: no pixel of the frame lies inside the window.
  """
  x, y, extent = (float(value) for value in window)
  corner = (x - extent / 2, y - extent / 2) * 2
  # Nearly whole numbers count as whole: windows come from float arithmetic.
  first = [max(0, math.ceil(edge - 1e-4)) for edge in corner[:2]]
  last = [
    min(limit, math.floor(edge + extent + 1e-4))
    for limit, edge in zip(frame_size, corner, strict=False)
  ]
  if first[0] >= last[0] or first[1] >= last[1]:
    width, height = frame_size
    raise ValueError(
      f"the window at ({x:.0f}, {y:.0f}) with side {extent:.0f} holds no pixel"
      f" of a {width}x{height} frame: mark that frame absent"
    )
  for axis in range(2):
    low = math.floor(corner[axis] + part[axis] * extent)
    high = math.ceil(corner[axis] + part[axis + 2] * extent)
    # One pixel at least: what the part needs may lie outside the frame.
    first[axis] = min(max(first[axis], low), last[axis] - 1)
    last[axis] = max(min(last[axis], high), first[axis] + 1)
  edges = (*first, *last)
  box = tuple((e - c) / extent for e, c in zip(edges, corner, strict=True))
  return Placement(slice(first[1], last[1]), slice(first[0], last[0]), box)


def place_window(
  patch: UInt8[np.ndarray, "s s *ch"],
  window: Float[np.ndarray, "3"],
  frame_size: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "r c *ch"], slice, slice]:
  """Inverts crop_window: resamples a patch to the pixel grid of its frame.

  Args:
    patch: the window's content.
    window: centre x, centre y, side in pixels of the frame.
    frame_size: width and height of the frame.

  Returns:
    The pixels that lie wholly inside the window and the frame, and the slices
    of rows and of columns of the frame where they belong.

  Raises:
    ValueError: no pixel of the frame lies inside the window.
  """
  place = placement(window, frame_size)
  return place.put(patch), place.rows, place.columns
