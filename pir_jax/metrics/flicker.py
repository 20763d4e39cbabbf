"""Flicker of texture: how much a face changes from frame to frame on its own.

The frame before is moved as what it shows moves; what still differs is texture,
light and noise of the codec. So compare the value only with that of the source
at the same place. What lacks the source's grain changes less than it.

h height, w width, l levels.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from pir_jax.metrics import seam

_LEVELS = 4  # Halvings at which motion is sought, the whole size among them.
_STEPS = 3  # Of Gauss and Newton at each.
_WINDOW = 4.0  # Sigma of the window that moves as one, in pixels of its level.
_BEND = 1.0  # Sigma by which the motion is smoothed after each step.
_RIDGE = 4.0  # Square of the slope of luma below which motion is not seen.
_MARGIN = 32  # Pixels around the region in which motion is sought, too.

Luma = Float[np.ndarray, "h w"]


def flow(before: Luma, after: Luma) -> Float[np.ndarray, "2 h w"]:
  """Finds whence each pixel came: the motion of Lucas and Kanade (1981).

  Coarse to fine, with Gaussian windows. It finds motions up to some 30 pixels.

  Args:
    before: luma, 0 to 255.
    after: the next frame's.

  Returns:
    Rows and columns to add to a place of `after` for its place in `before`.
  """
  result = np.zeros((2, 1, 1), np.float32)
  for level in reversed(range(_LEVELS)):
    step = 2**level
    pair = [_blurred(x, 0.6 * step)[::step, ::step] for x in (before, after)]
    result = _enlarged(result, pair[1].shape)
    for _ in range(_STEPS):
      moved = _moved(pair[0], result)
      slopes = np.gradient((moved + pair[1]) / 2)
      gap = pair[1] - moved
      (rr, rc, cc), (rg, cg) = (
        [_blurred(product, _WINDOW) for product in products]
        for products in (
          (slopes[0] ** 2, slopes[0] * slopes[1], slopes[1] ** 2),
          (slopes[0] * gap, slopes[1] * gap),
        )
      )
      rr, cc = rr + _RIDGE, cc + _RIDGE
      turn = np.stack([cc * rg - rc * cg, rr * cg - rc * rg])
      result += turn / (rr * cc - rc**2)
      result = np.stack([_blurred(x, _BEND) for x in result])
  return result


def change(
  before: UInt8[np.ndarray, "h w 3"],
  after: UInt8[np.ndarray, "h w 3"],
  mask: Bool[np.ndarray, "h w"],
) -> float:
  """Computes the mean absolute difference of luma, 0 to 255, in a region.

  Args:
    before: a frame; it is moved by `flow`.
    after: the next one.
    mask: of `after`: the region.

  Returns:
    NaN where the region is empty.
  """
  if not mask.any():
    return float("nan")
  box = tuple(
    slice(max(0, places.min() - _MARGIN), places.max() + 1 + _MARGIN)
    for places in np.nonzero(mask)
  )
  weights = np.float32(seam.LUMA)
  pair = [image[box] @ weights for image in (before, after)]
  gap = pair[1] - _moved(pair[0], flow(*pair))
  return float(np.abs(gap)[mask[box]].mean())


def ratio(
  output: Float[np.ndarray, "t"], source: Float[np.ndarray, "t"]
) -> float:
  """Computes a clip's summed change over its source's: 1 flickers as much.

  Frames with NaN in either are left out; NaN where nothing is left.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  total = source[valid].sum()
  return float(output[valid].sum() / total) if total > 0 else float("nan")


def _blurred(image, sigma: float) -> np.ndarray:
  return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=2.5)


def _moved(image: Luma, motion: Float[np.ndarray, "2 h w"]) -> Luma:
  places = np.indices(image.shape, np.float32) + motion
  return ndimage.map_coordinates(image, places, order=1, mode="nearest")


def _enlarged(motion, shape: tuple[int, int]) -> np.ndarray:
  """Takes a motion to the next level, of twice the size or one less."""
  if motion.shape[1:] == (1, 1):
    return np.zeros((2, *shape), np.float32)
  return np.stack(
    [2 * x.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]] for x in motion]
  )
