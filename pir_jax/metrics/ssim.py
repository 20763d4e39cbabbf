"""Structural similarity, on RGB in [0, 1].

t any leading axes (frames), h height, w width.
"""

import numpy as np
from jaxtyping import Float
from skimage.metrics import structural_similarity

from pir_jax.metrics import psnr


def ssim(
  frames: psnr.Frames, target: psnr.Frames, mask: psnr.Mask | None = None
) -> Float[np.ndarray, "*t"]:
  """Computes SSIM of each frame, 1 for equal frames.

  The window of Wang et al. 2004: a Gaussian of standard deviation 1.5 (11
  pixels), population covariance; per colour, then the mean (scikit-image).
  Without a mask the border of half a window is left out; with one, the map is
  averaged where mask > 0.5, NaN where the mask is empty.

  Raises:
    ValueError: float frames outside [0, 1].
  """
  frames, target = psnr.to_unit(frames), psnr.to_unit(target)
  lead = frames.shape[:-3]
  values = np.empty(lead)
  for index in np.ndindex(lead):
    mean, full = structural_similarity(
      frames[index],
      target[index],
      data_range=1.0,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      full=True,
    )
    if mask is not None:
      mean = psnr.mean_inside(full.mean(-1), mask[index])
    values[index] = mean
  return values
