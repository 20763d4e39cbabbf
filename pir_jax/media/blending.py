"""A painted window back in its frame, with no seam.

r rows and c columns of the frame, h and w of the part of it that is touched,
s side of the painted window, g side of the grid on which colours are compared.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from pir_jax.media import crops

FEATHER = 0.06  # From the mask's edge to full opacity, as a share of the side.
_EDGES, _COLOURS = 128, 64  # Most cells a side for opacity, and for colours.
_RING = 0.1  # How far outside the mask colours are compared, of the side.
_REACH = 0.08  # Standard deviation with which they are carried inwards.
# Most that a place may differ from the whole ring, and the ring from 1: beyond
# it, the two pictures differ in what they show and not in light.
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


def paste(
  frame: UInt8[np.ndarray, "r c 3"],
  window: Float[np.ndarray, "3"],
  painted: Float[np.ndarray, "s s 3"],
  mask: Bool[np.ndarray, "s s"],
) -> UInt8[np.ndarray, "r c 3"]:
  """The frame with the painted window where the mask is.

  The painted light is matched to the frame's on a ring around the mask, and
  fades in from the mask's edge inwards. Outside the mask every bit is the
  frame's own; nothing that the frame shows under the mask moves the colours.

  Args:
    frame: at any size.
    window: centre x, centre y, side in pixels of the frame; see `windows`.
    painted: what the window shall show, in [-1, 1] (cut off there).
    mask: where; an empty one changes nothing.

  Raises:
    ValueError: no pixel of the frame lies inside the window.
  """
  result = frame.copy()
  opacity = feather(mask)
  if not opacity.any():
    return result
  patch = to_bytes(painted)
  grid = max(1, min(_COLOURS, len(mask), int(window[2])))
  box = Image.Resampling.BOX
  gain = match(crops.crop_window(frame, window, grid, box), patch, mask)
  size = (frame.shape[1], frame.shape[0])
  place = crops.placement(window, size, crops.bounds(mask))
  linear = Image.Resampling.BILINEAR
  # Interpolation reaches further where the window is the smaller one.
  inside = place.put(mask.astype(np.uint8), Image.Resampling.NEAREST) > 0
  cover = np.where(inside, place.put(opacity, linear), 0)
  light = _TO_LINEAR[place.put(patch)]
  under = frame[place.rows, place.columns]
  truth = _TO_LINEAR[under]
  for i in range(3):
    colour = light[..., i] * place.put(
      np.ascontiguousarray(gain[..., i]), linear
    )
    truth[..., i] += cover * (np.minimum(colour, 1) - truth[..., i])
  blended = _FROM_LINEAR[(truth * 65535 + 0.5).astype(np.uint16)]
  result[place.rows, place.columns] = np.where(
    cover[..., None] > 0, blended, under
  )
  return result


def match(
  truth: UInt8[np.ndarray, "g g 3"],
  painted: UInt8[np.ndarray, "s s 3"],
  mask: Bool[np.ndarray, "s s"],
) -> Float[np.ndarray, "g g 3"]:
  """Factors of linear light that bring the painted window to the true one.

  Near the mask's edge that of the ring there, deep inside that of the whole
  ring; 1 where no ring is left, which is so for a mask of the whole window.

  Args:
    truth: the window as it was, shrunk so that no pixel counts in a cell that
      it does not touch.
    painted: the whole window as it was painted.
    mask: what is not to be looked at.
  """
  grid = len(truth)
  ring = _ring(_cells(mask, grid), grid)
  if not ring.any():
    return np.ones((grid, grid, 3), np.float32)
  real, made = (
    np.where(ring[..., None], _TO_LINEAR[image], 0)
    for image in (truth, crops.shrink(painted, grid))
  )
  whole = (real.sum((0, 1)) + _DARK) / (made.sum((0, 1)) + _DARK)
  # Sums, not a mean of ratios: what is dark or far says little, and where
  # nothing is near, the ring as a whole decides.
  spread = (_REACH * grid, _REACH * grid, 0)
  real, made = (
    ndimage.gaussian_filter(light, spread, mode="constant")
    for light in (real, made)
  )
  local = (real + _DARK * whole) / (made + _DARK) / whole
  whole = np.clip(whole, 1 / _WHOLE, _WHOLE)
  return np.clip(local, 1 / _LOCAL, _LOCAL).astype(np.float32) * whole


def feather(
  mask: Bool[np.ndarray, "s s"], share: float = FEATHER
) -> Float[np.ndarray, "g g"]:
  """Opacity of what is painted: 0 outside the mask, 1 well inside.

  It rises from the mask's edge inwards over `share` of the side, so nothing
  outside the mask is ever touched. On a grid of at most 128 cells a side; a
  cell that is not wholly inside the mask has 0.
  """
  grid = min(_EDGES, len(mask))
  # A ring of zeros: a mask that meets the window's edge fades there too.
  ringed = np.pad(~_cells(~mask, grid), 1)
  inside = ndimage.distance_transform_edt(ringed)[1:-1, 1:-1]
  # Cells that touch the outside, at a corner even, stay at 0: interpolation
  # then ends inside the mask.
  ramp = np.clip((inside - 2**0.5) / max(share * grid, 1), 0, 1)
  # Smoothstep: no crease where the ramp begins and ends.
  return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def to_bytes(
  images: Float[np.ndarray, "*b h w 3"],
) -> UInt8[np.ndarray, "*b h w 3"]:
  """Images in [-1, 1] (cut off there) as bytes."""
  return np.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def _cells(mask: Bool[np.ndarray, "s s"], grid: int) -> Bool[np.ndarray, "g g"]:
  """Cells in which any pixel is set, however small its share."""
  edges = np.arange(grid) * len(mask) / grid
  first = np.floor(edges).astype(int)
  # A pixel on the line between two cells belongs to both.
  last = np.ceil(edges + len(mask) / grid - 1e-9).astype(int) - 1
  rows = np.logical_or.reduceat(mask, first, axis=0) | mask[last]
  return np.logical_or.reduceat(rows, first, axis=1) | rows[:, last]


def _ring(mask: Bool[np.ndarray, "g g"], grid: int) -> Bool[np.ndarray, "g g"]:
  """Cells about the mask whose colours hold nothing from under it."""
  near = 2 * max(1, round(_RING * grid)) + 1
  reached = ndimage.maximum_filter(mask.astype(np.uint8), (near, near)) > 0
  # One cell more: the picture was resampled, which mixes neighbours.
  hidden = ndimage.maximum_filter(mask.astype(np.uint8), (3, 3)) > 0
  return reached & ~hidden
