"""How strong the picture's edge is where the painted part begins.

A seam is a step ACROSS the outline of the mask, so of the gradient only the
component along the outline's normal counts: hair or a jaw line that crosses
the outline adds little. What the source shows at the same place is the measure:
1.0 is as strong as there, more is a visible seam, less is a blur.

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
  """The pixels whose centres lie near the outline of a mask.

  Pixels at the picture's own edge are left out: there is no outside.

  Args:
    mask: True where something was painted.
    widths: how far the band reaches outside the outline and inside, in pixels.
      (2, 2) is the outline; a feather that runs inwards needs (0, its width).
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
  # Pixels make a staircase of any slanting outline; its slope is smooth.
  slope = np.stack(np.gradient(ndimage.gaussian_filter(signed, 2.0)), -1)
  normal = slope[chosen]
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  return Band(np.flatnonzero(chosen), normal / np.maximum(length, 1e-12))


def gradient(
  frames: psnr.Frames, bands: list[Band], blur: float = 0.0
) -> Float[np.ndarray, "t"]:
  """Mean |gradient across the outline| of each frame, luma in [0, 1] a pixel.

  Args:
    frames: RGB.
    bands: one a frame; not-a-number where it is empty.
    blur: standard deviation in pixels with which the picture is smoothed
      first: then texture hardly counts, and a step that was spread over a
      feather does.

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
  """Mean of a clip's gradients over that of its source's.

  Frames without a band in either are left out; not-a-number without any, or
  where the source is flat.
  """
  valid = np.isfinite(output) & np.isfinite(source)
  if not valid.any() or source[valid].mean() == 0:
    return float("nan")
  return float(output[valid].mean() / source[valid].mean())
