"""Convex hulls of projected points, as masks in square windows.

t hulls, k windows, n points, e edges of a hull, r pixels of the window's side.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import spatial

_CORNERS = 24  # Of a disc.
_ANGLES = 2 * np.pi / _CORNERS * (np.arange(_CORNERS) + [[0], [0.5]])
# Its corners, and the normals of its edges.
_DISC, _DISC_EDGES = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)


def rasterise(
  points: Float[np.ndarray, "t n 2"],
  margin: Float[np.ndarray, "t"],
  window: Float[np.ndarray, "k 3"],
  resolution: int,
  near: Sequence[Int[np.ndarray, "_"]] | None = None,
  resampled: bool = False,
) -> Bool[np.ndarray, "k r r"]:
  """Rasterises convex hulls, dilated by a margin, in the windows.

  Args:
    points: one set for each hull.
    margin: in the same pixels.
    window: one for each mask.
    resolution: of the masks.
    near: the hulls that each mask joins; None takes each its own.
    resampled: they also cover what they enter in a resampled window.
  """
  if near is None:
    near = [np.array([frame]) for frame in range(len(points))]
  hulls = [_grown(*hull) for hull in zip(points, margin, strict=True)]
  masks = np.zeros((len(window), resolution, resolution), bool)
  spans, current = {}, None
  for mask, square, joined in zip(masks, window, near, strict=True):
    if current is None or (square != current).any():
      # Windows are mostly fixed, and neighbours share their hulls.
      spans, current = {}, square
      support = _support(float(square[2]) / resolution) if resampled else 0.0
    for hull in joined:
      if hull not in spans:
        spans[hull] = _spans(hulls[hull], square, resolution, support)
    _join(mask, np.stack([spans[hull] for hull in joined]))
  return masks


def intersect(
  lines: Float[np.ndarray, "t 3"],
  window: Float[np.ndarray, "k 3"],
  resolution: int,
  near: Sequence[Int[np.ndarray, "_"]],
) -> Bool[np.ndarray, "k r r"]:
  """Rasterises what lies inside several lines at once, in the windows.

  Args:
    lines: (a, b, c) with a normal of length 1; inside, a x + b y + c <= 0.
    window: one for each mask.
    resolution: of the masks.
    near: the lines that each mask lies inside.
  """
  masks = np.zeros((len(window), resolution, resolution), bool)
  for mask, square, joined in zip(masks, window, near, strict=True):
    _join(mask, _spans(lines[joined], square, resolution)[None])
  return masks


def _grown(
  points: Float[np.ndarray, "n 2"], radius: float | np.floating
) -> Float[np.ndarray, "e 3"]:
  """Dilates a convex hull by a disc: the hull of discs at its corners.

  Returns:
    Lines (a, b, c); inside, a x + b y + c <= 0.
  """
  hull = spatial.ConvexHull(points)
  corners, edges = points[hull.vertices], hull.equations
  # The sum's edges are those of both, each moved out by the other's extent.
  offset = edges[:, 2] - radius * (edges[:, :2] @ _DISC.T).max(1)
  extent = (corners @ _DISC_EDGES.T).max(0) + radius * np.cos(np.pi / _CORNERS)
  return np.concatenate(
    [
      np.column_stack([edges[:, :2], offset]),
      np.column_stack([_DISC_EDGES, -extent]),
    ]
  )


def _support(pixel: float) -> float:
  """Returns the radius of a source pixel in a bicubic window, source pixels."""
  # Two pixels of the coarser grid along both axes; one of either for rounding.
  return 2**0.5 * (2 * max(pixel, 1.0) + pixel + 1.0)


def _spans(
  lines: Float[np.ndarray, "e 3"],
  square: Float[np.ndarray, "3"],
  resolution: int,
  support: float = 0.0,
) -> Int[np.ndarray, "2 r"]:
  """Computes each row's interval of pixels whose centres lie near a hull.

  Returns:
    Start and stop of each row; equal where it is empty.
  """
  centres = (np.arange(resolution) + 0.5) / resolution - 0.5
  x, y, offset = lines.T[..., None]
  offset = offset - support  # The lines' normals have length 1.
  down = square[1] + centres * square[2]
  # Each edge allows x * column + y * row + offset <= 0: per row, an interval.
  limit = -(y * down + offset)
  right, left = x[:, 0] > 1e-9, x[:, 0] < -1e-9
  last = (limit[right] / x[right]).min(0, initial=np.inf)
  first = (limit[left] / x[left]).max(0, initial=-np.inf)
  empty = (limit[~right & ~left] < 0).any(0) | (first > last)
  across = square[0] + centres * square[2]
  start = np.searchsorted(across, first, side="left")
  stop = np.searchsorted(across, last, side="right")
  return np.stack([start, np.where(empty, start, np.maximum(start, stop))])


def _join(
  mask: Bool[np.ndarray, "r r"], spans: Int[np.ndarray, "n 2 r"]
) -> None:
  """Fills the union of intervals in every row, in place."""
  resolution = len(mask)
  start, stop = spans.astype(np.int32).swapaxes(0, 1)
  empty = start >= stop
  first = np.where(empty, resolution, start).min(0)
  last = np.where(empty, 0, stop).max(0)
  # Where all have a pixel in common, as faces of neighbouring frames mostly
  # do, they are one interval.
  one = np.where(empty, 0, start).max(0) <= np.where(
    empty, resolution, stop
  ).min(0)
  columns = np.arange(resolution, dtype=np.int32)
  filled = columns >= np.where(one, first, resolution)[:, None]
  mask |= filled & (columns < last[:, None])
  for row in np.flatnonzero(~one):
    for low, high in zip(start[:, row], stop[:, row], strict=True):
      mask[row, low:high] = True
