"""Sharpness: the energy of the second derivative, relative to the target's.

t frames, h height, w width.
"""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from pir_jax.metrics import psnr, seam


def energy(frames: psnr.Frames, mask: psnr.Mask) -> Float[np.ndarray, "t"]:
  """Computes each frame's mean squared Laplacian of luma where mask > 0.5.

  Noise and ringing count as detail too, so a value above the target's is not
  better. NaN where the mask is empty.

  Raises:
    ValueError: float frames outside [0, 1].
  """
  result = []
  for frame, region in zip(frames, mask, strict=True):
    luma = psnr.to_unit(frame) @ np.array(seam.LUMA)
    result.append(psnr.mean_inside(np.square(ndimage.laplace(luma)), region))
  return np.array(result, np.float64)


def ratio(
  output: Float[np.ndarray, "t"], target: Float[np.ndarray, "t"]
) -> float:
  """Computes a clip's summed energy over the target's: 1 is equally sharp.

  NaN where the target is flat throughout.
  """
  valid = np.isfinite(output) & np.isfinite(target)
  total = target[valid].sum()
  return float(output[valid].sum() / total) if total > 0 else float("nan")
