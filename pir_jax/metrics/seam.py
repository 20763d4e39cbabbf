"""Visibility of the seam around the inpainted region.

A seam is a step ACROSS the outline of the mask, so of the gradient only the
component along the outline's normal counts: hair or a jaw line that crosses
the outline adds little. The source's gradient at the same place is the
reference: 1.0 is equal, more is a visible seam, less is a blur.

t frames, h height, w width, n pixels of a band.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from pir_jax.metrics import psnr

LUMA = (0.299, 0.587, 0.114)
# The outline itself: central differences two pixels either side see a step.
OUTLINE = (2.0, 2.0)


class Band(NamedTuple):
  """Pixels of one frame along the mask's outline, and the normals there.

  Attributes:
    place: of each pixel, in a flat frame.
    normal: unit vectors (rows, columns), pointing into the mask.
  """

  place: Int[np.ndarray, "n"]
  normal: Float[np.ndarray, "n 2"]


def band(
  mask: Bool[np.ndarray, "h w"], widths: tuple[float, float] = OUTLINE
) -> Band:
  """Selects the pixels whose centres lie near the outline of a mask.

  Pixels at the image's edge are left out: they have no outside.

  Args:
    mask: the inpainted region.
    widths: of the band outside the outline and inside, in pixels. (2, 2) is
      the outline; a feather that runs inwards needs (0, its width).
  """
  outer, inner = widths
  # Distances are to pixel centres: the outline runs half a pixel nearer.
  inside = ndimage.distance_transform_edt(mask) - 0.5
  outside = ndimage.distance_transform_edt(~mask) - 0.5
  signed = np.where(mask, inside, -outside)
  chosen = (signed >= -outer) & (signed <= inner)
  chosen &= np.pad(np.ones([n - 2 for n in mask.shape], bool), 1)
  if mask.all() or not mask.any():
    chosen[:] = False
  # Smoothed: pixels make a staircase of any slanting outline.
  slope = np.stack(np.gradient(ndimage.gaussian_filter(signed, 2.0)), -1)
  normal = slope[chosen]
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  return Band(np.flatnonzero(chosen), normal / np.maximum(length, 1e-12))


def gradient(
  frames: psnr.Frames, bands: list[Band], blur: float = 0.0
) -> Float[np.ndarray, "t"]:
  """Computes each frame's mean |gradient across the outline|, luma per pixel.

  Args:
    frames: RGB.
    bands: one a frame; NaN where it is empty.
    blur: standard deviation in pixels of a Gaussian filter applied first, which
      suppresses texture but not a step spread over a feather.

  Raises:
    ValueError: not as many bands as frames, or float frames outside [0, 1].
  """
  result = np.full(len(frames), np.nan)
  for i, (frame, where) in enumerate(zip(frames, bands, strict=True)):
    if len(where.place):
      luma = psnr.to_unit(frame) @ np.array(LUMA)
      if blur:
        luma = ndimage.gaussian_filter(luma, blur)
      slope = np.stack(np.gradient(luma), -1).reshape(-1, 2)[where.place]
      result[i] = np.abs(np.sum(slope * where.normal, axis=-1)).mean()
  return result


def ratio(
  output: Float[np.ndarray, "t"], source: Float[np.ndarray, "t"]
) -> float:
  """Computes a clip's mean gradient over its source's.

  Frames without a band in either are left out; NaN without any other, or where
  the source is flat.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  if not valid.any() or source[valid].mean() == 0:
    return float("nan")
  return float(output[valid].mean() / source[valid].mean())
