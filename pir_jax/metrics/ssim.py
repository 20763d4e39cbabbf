"""Structural similarity, on RGB in [0, 1].

t any leading axes (frames), h height, w width.
"""

import os
from concurrent import futures

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
  whole, maps = with_maps(frames, target)
  return whole if mask is None else inside(maps, mask)


def with_maps(
  frames: psnr.Frames, target: psnr.Frames
) -> tuple[Float[np.ndarray, "*t"], Float[np.ndarray, "*t h w"]]:
  """Computes the SSIM of each frame as a whole, and at every pixel."""
  frames, target = psnr.to_unit(frames), psnr.to_unit(target)
  lead = frames.shape[:-3]
  values, maps = np.empty(lead), np.empty(frames.shape[:-1])

  def measure(index):
    values[index], full = structural_similarity(
      frames[index],
      target[index],
      data_range=1.0,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      full=True,
    )
    maps[index] = full.mean(-1)

  # Its filters leave Python's lock to others.
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(measure, np.ndindex(lead)))
  return values, maps


def inside(
  maps: Float[np.ndarray, "*t h w"], mask: psnr.Mask
) -> Float[np.ndarray, "*t"]:
  """Averages maps where mask > 0.5; NaN where the mask is empty."""
  values = np.empty(maps.shape[:-2])
  for index in np.ndindex(values.shape):
    values[index] = psnr.mean_inside(maps[index], mask[index])
  return values
