"""The square window around the head: cut from a frame, and put back.

A window is (centre x, centre y, side) in pixels of the frame, at any fraction;
pixel (0, 0) covers [0, 1] x [0, 1]. r rows, c columns, s side of the result.
"""

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


def _resample(
  image: np.ndarray,
  box: tuple[float, ...],
  size: tuple[int, int],
  method: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
  """What lies in a box (left, top, right, bottom) of an image, at a new size.

  Beyond the image its edge repeats. Antialiased when shrinking.
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
  picture = Image.fromarray(np.ascontiguousarray(image))
  box = (left, top, right, bottom)
  return np.array(picture.resize(size, method, box))


def crop_window(
  image: UInt8[np.ndarray, "r c *ch"],
  window: Float[np.ndarray, "3"],
  side: int,
) -> UInt8[np.ndarray, "s s *ch"]:
  """The window of a frame at `side` pixels; RGB or grey.

  Args:
    image: the frame.
    window: centre x, centre y, side in its pixels; may reach over its edge,
      which is repeated.
    side: of the result.
  """
  x, y, extent = (float(value) for value in window)
  half = extent / 2
  return _resample(image, (x - half, y - half, x + half, y + half), (side,) * 2)


def place_window(
  patch: UInt8[np.ndarray, "s s *ch"],
  window: Float[np.ndarray, "3"],
  frame_size: tuple[int, int],
  method: Image.Resampling = Image.Resampling.BICUBIC,
) -> tuple[UInt8[np.ndarray, "r c *ch"], slice, slice]:
  """The inverse of crop_window: a patch on the pixel grid of its frame.

  Args:
    patch: what the window shows.
    window: centre x, centre y, side in pixels of the frame.
    frame_size: width and height of the frame.
    method: of resampling.

  Returns:
    The pixels that lie wholly inside the window and the frame, and the slices
    of rows and of columns of the frame where they belong.

  Raises:
    ValueError: no pixel of the frame lies inside the window.
  """
  x, y, extent = (float(value) for value in window)
  width, height = frame_size
  # Nearly whole numbers count as whole: windows come from float arithmetic.
  left = max(0, math.ceil(x - extent / 2 - 1e-4))
  top = max(0, math.ceil(y - extent / 2 - 1e-4))
  right = min(width, math.floor(x + extent / 2 + 1e-4))
  bottom = min(height, math.floor(y + extent / 2 + 1e-4))
  if left >= right or top >= bottom:
    raise ValueError(
      f"the window at ({x:.0f}, {y:.0f}) with side {extent:.0f} holds no pixel"
      f" of a {width}x{height} frame: mark that frame absent"
    )
  scale = len(patch) / extent
  box = (
    (left - x + extent / 2) * scale,
    (top - y + extent / 2) * scale,
    (right - x + extent / 2) * scale,
    (bottom - y + extent / 2) * scale,
  )
  limit = float(len(patch))
  box = tuple(min(max(edge, 0.0), limit) for edge in box)
  pixels = _resample(patch, box, (right - left, bottom - top), method)
  return pixels, slice(top, bottom), slice(left, right)


def blend_window(
  frame: UInt8[np.ndarray, "r c 3"],
  window: Float[np.ndarray, "3"],
  patch: UInt8[np.ndarray, "s s 3"],
  opacity: Float[np.ndarray, "s s"],
) -> UInt8[np.ndarray, "r c 3"]:
  """The frame with a patch over its window, as opaque as told.

  Where the opacity is 0 the frame's pixels are returned as they were.
  """
  size = (frame.shape[1], frame.shape[0])
  cover = (opacity * 255 + 0.5).astype(np.uint8)
  pixels, rows, columns = place_window(patch, window, size)
  # Bilinear never rises outside the pixels that are covered.
  linear = Image.Resampling.BILINEAR
  share = place_window(cover, window, size, linear)[0][..., None] / 255.0
  under = frame[rows, columns]
  result = frame.copy()
  result[rows, columns] = np.where(
    share > 0, under * (1 - share) + pixels * share + 0.5, under
  ).astype(np.uint8)
  return result
