"""Peak signal-to-noise ratio, on RGB in [0, 1].

t any leading axes (frames), h height, w width.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

Frames = Float[np.ndarray, "*t h w 3"] | UInt8[np.ndarray, "*t h w 3"]
Mask = Float[np.ndarray, "*t h w 1"] | Bool[np.ndarray, "*t h w 1"]


def psnr(
  frames: Frames, target: Frames, mask: Mask | None = None
) -> Float[np.ndarray, "*t"]:
  """Computes PSNR in dB of each frame, over all pixels or mask > 0.5.

  The error is the mean over all three colours. Our choice: some published
  values are of grey frames shrunk to 256 pixels. Equal frames give infinity and
  a frame with an empty mask NaN, so average with `numpy.nanmean` over frames
  that differ.

  Raises:
    ValueError: float frames outside [0, 1].
  """
  error = np.square(to_unit(frames) - to_unit(target)).mean(-1)
  if mask is None:
    error = error.mean((-2, -1))
  else:
    error = mean_inside(error, mask)
  with np.errstate(divide="ignore"):
    return np.asarray(-10 * np.log10(error))


def to_unit(frames: Frames) -> Float[np.ndarray, "*t h w 3"]:
  """Converts uint8, or float in [0, 1], to float64 in [0, 1].

  Raises:
    ValueError: float frames outside [0, 1].
  """
  if frames.dtype == np.uint8:
    return frames / 255.0
  if frames.size and not (frames.min() >= 0 and frames.max() <= 1):
    raise ValueError(
      f"float frames go from {frames.min():.3g} to {frames.max():.3g}: bring "
      "them to [0, 1] first, for [-1, 1] by (x + 1) / 2"
    )
  return frames.astype(np.float64)


def mean_inside(
  values: Float[np.ndarray, "*t h w"], mask: Mask
) -> Float[np.ndarray, "*t"]:
  """Averages each frame's values where mask > 0.5; NaN for an empty mask."""
  inside = mask[..., 0] > 0.5
  count = inside.sum((-2, -1))
  total = np.where(inside, values, 0).sum((-2, -1))
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
