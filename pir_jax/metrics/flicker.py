"""Flicker of texture: how much a face changes from frame to frame on its own.

The frame before is moved as the head moved; what still differs is texture,
light, noise of the codec, and what the muscles do. So compare the value only
with that of the source at the same place. A blur flickers less than the source.

t frames, h height, w width, n points.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from pir_jax.metrics import seam


def motion(
  before: Float[np.ndarray, "n 2"], after: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
  """Fits the affine map that takes places after a motion back before it.

  Args:
    before: x and y of points of the head.
    after: of the same points, a frame later.
  """
  places = np.append(after, np.ones((len(after), 1)), axis=1)
  return np.linalg.lstsq(places, before, rcond=None)[0].T


def change(
  before: UInt8[np.ndarray, "h w 3"],
  after: UInt8[np.ndarray, "h w 3"],
  back: Float[np.ndarray, "2 3"],
  mask: Bool[np.ndarray, "h w"],
) -> float:
  """Computes the mean absolute difference of luma, 0 to 255, in a region.

  Args:
    before: a frame.
    after: the next one.
    back: where each place of it was before, see `motion`.
    mask: of `after`: the region.

  Returns:
    NaN where the region is empty.
  """
  if not mask.any():
    return float("nan")
  luma = [image @ np.array(seam.LUMA) for image in (before, after)]
  # SciPy has rows before columns.
  matrix, offset = back[::-1, 1::-1], back[::-1, 2]
  moved = ndimage.affine_transform(
    luma[0], matrix, offset, order=1, mode="nearest"
  )
  return float(np.abs(luma[1] - moved)[mask].mean())


def ratio(
  output: Float[np.ndarray, "t"], source: Float[np.ndarray, "t"]
) -> float:
  """Computes a clip's summed change over its source's: 1 flickers as much.

  Frames with NaN in either are left out; NaN where nothing is left.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  total = source[valid].sum()
  return float(output[valid].sum() / total) if total > 0 else float("nan")
