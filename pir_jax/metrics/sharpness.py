"""Are the details there? Energy of the second derivative, beside the truth's.

t frames, h height, w width.
"""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from pir_jax.metrics import psnr, seam


def energy(frames: psnr.Frames, mask: psnr.Mask) -> Float[np.ndarray, "t"]:
  """Mean squared Laplacian of each frame's luma where mask > 0.5.

  Noise and ringing count as detail too, so a number above the truth's is no
  praise. Not-a-number where the mask is empty.

  Raises:
    ValueError: float frames outside [0, 1].
  """
  result = []
  for frame, region in zip(frames, mask, strict=True):
    luma = psnr.to_unit(frame) @ np.array(seam.LUMA)
    result.append(psnr.mean_inside(np.square(ndimage.laplace(luma)), region))
  return np.array(result, np.float64)


def ratio(
  output: Float[np.ndarray, "t"], truth: Float[np.ndarray, "t"]
) -> float:
  """Sum of a clip's energies over the truth's: 1 as sharp, 0 nothing but blur.

  Not-a-number where the truth is flat throughout.
  """
  valid = np.isfinite(output) & np.isfinite(truth)
  total = truth[valid].sum()
  return float(output[valid].sum() / total) if total > 0 else float("nan")
