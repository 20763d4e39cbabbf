"""Blends an inpainted window into its frame without a seam.

r rows and c columns of the frame, h and w of the part of it that is changed,
s side of the inpainted window, k of the grid of its opacity, g of that on which
colours are matched.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8
from PIL import Image
from scipy import ndimage

from pir_jax.media import crops

FEATHER = 0.06  # From full opacity at the mask to none, as a share of the side.
_EDGES, _COLOURS = 128, 64  # Most cells a side for opacity, and for colours.
_RING = 0.1  # Width of the ring around the mask, as a share of the side.
_SIGMA = 0.08  # Of the Gaussian that extends the ring's colours inwards.
# Largest factor between a cell and the whole ring, and between the ring and 1:
# beyond it, the two images differ in content and not in light.
_LOCAL, _WHOLE = 1.25, 2.0
_DARK = 0.01  # Linear light below which a ratio says little.

_BYTE = np.arange(256) / 255
_TO_LINEAR = np.where(
  _BYTE <= 0.04045, _BYTE / 12.92, ((_BYTE + 0.055) / 1.055) ** 2.4
).astype(np.float32)
# To the byte whose light is nearest: the smallest step of a byte is 20 of these
# steps, so a byte comes back as it was.
_FROM_LINEAR = np.searchsorted(
  (_TO_LINEAR[1:] + _TO_LINEAR[:-1]) / 2, np.arange(65536) / 65535
).astype(np.uint8)

# Rows and columns of a frame, and the side of the window -> grey levels.
Pattern = Callable[
  [slice, slice, float | np.floating], Int16[np.ndarray, "h w 3"]
]


class Border(NamedTuple):
  """What blending needs of a frame and a mask, whatever is inpainted there.

  Attributes:
    opacity: of the window, see `feather`.
    ring: cells around the mask, by which colours are matched; empty where there
      are none.
    light: of the frame in the ring, spread out.
    total: the same, summed up.
  """

  opacity: Float[np.ndarray, "k k"]
  ring: Bool[np.ndarray, "g g"]
  light: Float[np.ndarray, "g g 3"]
  total: Float[np.ndarray, "3"]


def paste(
  frame: UInt8[np.ndarray, "r c 3"],
  window: Float[np.ndarray, "3"],
  inpainted: Float[np.ndarray, "s s 3"],
  mask: Bool[np.ndarray, "s s"],
  pattern: Pattern | None = None,
) -> UInt8[np.ndarray, "r c 3"]:
  """Returns the frame with the inpainted window where the mask is.

  Colours are matched to the frame's on a ring around the mask, and opacity
  falls from the mask's edge outwards: under the mask nothing of the frame is
  seen or affects the colours; outside `changed_region` every bit is its own.

  Args:
    frame: at any size.
    window: centre x, centre y, side in pixels of the frame; see `crops`.
    inpainted: the window's new content, in [-1, 1] (clipped).
    mask: of the pixels that the network inpainted; an empty one changes
      nothing.
    pattern: what is added to the bytes that are inpainted.

  Raises:
    ValueError: no pixel of the frame lies inside the window.
  """
  return blend(frame, window, inpainted, border(frame, window, mask), pattern)


def border(
  frame: UInt8[np.ndarray, "r c 3"],
  window: Float[np.ndarray, "3"],
  mask: Bool[np.ndarray, "s s"],
) -> Border:
  """Measures what `blend` needs of a frame; the arguments are those of `paste`.

  Where the same frame comes again, this is half of the work.
  """
  grid = int(max(1, min(_COLOURS, len(mask), int(window[2]))))
  # Shrunk so that each pixel counts in the cells that it touches only.
  box = Image.Resampling.BOX
  ring = _ring(_cells(mask, grid), grid)
  light = _ring_light(crops.crop_window(frame, window, grid, box), ring)
  return Border(
    feather(mask, window[2]), ring, _spread(light), light.sum((0, 1))
  )


def blend(
  frame: UInt8[np.ndarray, "r c 3"],
  window: Float[np.ndarray, "3"],
  inpainted: Float[np.ndarray, "s s 3"],
  border: Border,
  pattern: Pattern | None = None,
) -> UInt8[np.ndarray, "r c 3"]:
  """Does what `paste` does, with what `border` measured."""
  result = frame.copy()
  if not border.opacity.any():
    return result
  patch = to_bytes(inpainted)
  size = (frame.shape[1], frame.shape[0])
  place = crops.placement(window, size, crops.bounds(border.opacity > 0))
  linear = Image.Resampling.BILINEAR
  cover = np.clip(place.put(border.opacity, linear), 0, 1)
  # Interpolation rounds; not a bit of the frame may come through.
  cover[cover > 1 - 1e-4] = 1
  changed = cover > 0
  gain, made = match(border, patch), place.put(patch)
  if pattern is not None:  # Before the blending, which lets it fade out.
    made = made + pattern(place.rows, place.columns, window[2])
  # One colour at a time lies together in memory.
  for i in range(3):
    under = result[place.rows, place.columns, i]
    behind = _TO_LINEAR.take(under)
    light = _TO_LINEAR.take(made[..., i], mode="clip")
    light *= place.put(np.ascontiguousarray(gain[..., i]), linear)
    light = behind + cover * (np.minimum(light, 1) - behind)
    blended = _FROM_LINEAR.take((light * 65535 + 0.5).astype(np.uint16))
    np.copyto(under, blended, where=changed)
  return result


def match(
  border: Border, inpainted: UInt8[np.ndarray, "s s 3"]
) -> Float[np.ndarray, "g g 3"]:
  """Computes factors of linear light that match the window to its source.

  Near the mask's edge the factor is that of the nearby ring, deep inside that
  of the whole ring; 1 without a ring, as for a mask of the whole window.

  Args:
    border: of the frame.
    inpainted: the whole inpainted window.
  """
  grid = len(border.ring)
  if not border.ring.any():
    return np.ones((grid, grid, 3), np.float32)
  made = _ring_light(crops.shrink(inpainted, grid), border.ring)
  whole = (border.total + _DARK) / (made.sum((0, 1)) + _DARK)
  # Sums, not a mean of ratios: dark or distant pixels weigh little, and far
  # from the ring its overall factor applies.
  local = (border.light + _DARK * whole) / (_spread(made) + _DARK) / whole
  whole = np.clip(whole, 1 / _WHOLE, _WHOLE)
  return np.clip(local, 1 / _LOCAL, _LOCAL).astype(np.float32) * whole


def _ring_light(
  image: UInt8[np.ndarray, "g g 3"], ring: Bool[np.ndarray, "g g"]
) -> Float[np.ndarray, "g g 3"]:
  return np.where(ring[..., None], _TO_LINEAR[image], np.float32(0))


def _spread(light: Float[np.ndarray, "g g 3"]) -> Float[np.ndarray, "g g 3"]:
  along = _gaussian(len(light))
  spread = along @ np.moveaxis(light, -1, 0) @ along.T
  return np.ascontiguousarray(np.moveaxis(spread, 0, -1))


@functools.cache
def _gaussian(size: int) -> Float[np.ndarray, "g g"]:
  """Returns what filters a column: with few cells a product is quicker."""
  columns = np.eye(size, dtype=np.float32)
  return ndimage.gaussian_filter1d(
    columns, _SIGMA * size, axis=0, mode="constant"
  )


def feather(
  mask: Bool[np.ndarray, "s s"],
  extent: float | np.floating = np.inf,
  share: float = FEATHER,
) -> Float[np.ndarray, "g g"]:
  """Computes the inpainted window's opacity: 1 on the mask, 0 well outside.

  It falls from the mask's edge outwards over `share` of the side, and towards
  the window's edge. On a grid of at most 128 cells a side, none of them smaller
  than a pixel of the frame; a cell of which any part is in the mask has 1.

  Args:
    mask: of the window.
    extent: side of the window in pixels of the frame.
    share: width of the band, as a share of the side.
  """
  grid = int(max(1, min(_EDGES, len(mask), extent)))
  width = max(share * grid, 1)
  if not mask.any():
    return np.zeros((grid, grid), np.float32)
  # Cells that touch the mask, at a corner even, stay at 1: interpolation then
  # begins to fall outside it.
  outside = ndimage.distance_transform_edt(~_cells(mask, grid)) - 2**0.5
  edge = 0.5 + np.minimum(np.arange(grid), np.arange(grid)[::-1])
  border = np.minimum(*np.meshgrid(edge, edge))
  ramp = np.clip(1 - outside / width, 0, 1) * np.clip(border / width, 0, 1)
  # Smoothstep: no crease where the ramp begins and ends.
  return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def changed_region(
  mask: Bool[np.ndarray, "s s"],
  side: int,
  extent: float | np.floating = np.inf,
) -> Bool[np.ndarray, "n n"]:
  """Returns the mask and the band around it that `paste` may change.

  Args:
    mask: of the window.
    side: of the result: n.
    extent: side of the window in pixels of the frame.
  """
  opacity = feather(mask, extent) > 0
  # Values between two cells are interpolated.
  wide = ndimage.maximum_filter(opacity, 3)
  cell = (np.arange(side) * len(wide)) // side
  return wide[cell[:, None], cell]


def to_bytes(
  images: Float[np.ndarray, "*b h w 3"],
) -> UInt8[np.ndarray, "*b h w 3"]:
  """Converts images in [-1, 1] (clipped) to bytes."""
  return np.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def _cells(mask: Bool[np.ndarray, "s s"], grid: int) -> Bool[np.ndarray, "g g"]:
  """Marks cells that any set pixel touches, however little."""
  edges = np.arange(grid) * len(mask) / grid
  first = np.floor(edges).astype(int)
  # A pixel on the line between two cells belongs to both.
  last = np.ceil(edges + len(mask) / grid - 1e-9).astype(int) - 1
  rows = np.logical_or.reduceat(mask, first, axis=0) | mask[last]
  return np.logical_or.reduceat(rows, first, axis=1) | rows[:, last]


def _ring(mask: Bool[np.ndarray, "g g"], grid: int) -> Bool[np.ndarray, "g g"]:
  """Marks cells around the mask whose colours hold nothing from under it."""
  near = 2 * max(1, round(_RING * grid)) + 1
  nearby = ndimage.maximum_filter(mask.astype(np.uint8), (near, near)) > 0
  # One cell more: resampling mixed neighbours.
  hidden = ndimage.maximum_filter(mask.astype(np.uint8), (3, 3)) > 0
  return nearby & ~hidden
