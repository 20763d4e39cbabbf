"""The detail of an image: the smallest scale from which it can be restored.

A 1080p file may be enlarged from 360p, or out of focus. An image that can be
shrunk and enlarged again without a visible loss has no finer detail.

h height, w width.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

_LUMA = (0.299, 0.587, 0.114)
# RMS error from which a loss is visible: a PSNR of 40 dB. Ours.
VISIBLE = 255 / 100
SCALES = tuple(0.9**step for step in range(1, 29))  # Down to 1/20.


def finest(
  image: UInt8[np.ndarray, "h w 3"],
  mask: Bool[np.ndarray, "h w"],
  noise_level: float = 0.0,
) -> float:
  """Measures the finest detail inside a mask, in pixels, 1.0 at the least.

  An image that can be shrunk to a third without a visible loss has detail down
  to 3 pixels.

  Args:
    image: RGB.
    mask: where to look.
    noise_level: of the picture, grey levels; that much lost is no loss.

  Returns:
    1 / the smallest of SCALES, interpolated, from which the image can be
    restored; 1 / the last of them where that loses nothing either.

  Raises:
    ValueError: the mask is empty.
  """
  if not mask.any():
    raise ValueError("the mask is empty: pass one that covers the face")
  luma = (image @ np.array(_LUMA)).astype(np.float32)
  picture = Image.fromarray(luma)
  visible = float(np.hypot(VISIBLE, noise_level))
  before, scale_before = 0.0, 1.0
  for scale in SCALES:
    loss = _loss(picture, luma, mask, scale)
    if loss > visible:
      share = (visible - before) / (loss - before)
      return float(1 / (scale_before + share * (scale - scale_before)))
    before, scale_before = max(before, loss), scale
  return float(1 / SCALES[-1])


def noise(
  image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> float:
  """Estimates the std of an image's noise inside a mask, in grey levels.

  Immerkaer's operator (1996) is blind to slopes and edges of its neighbourhood;
  the median of its answers is not moved by the few places with more.

  Raises:
    ValueError: the mask is empty.
  """
  if not mask.any():
    raise ValueError("the mask is empty: pass one that covers the face")
  luma = image @ np.array(_LUMA)
  kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
  answer = np.abs(ndimage.convolve(luma, kernel, mode="nearest"))
  return float(np.median(answer[mask]) / 6 / 0.6745)


def _loss(
  picture: Image.Image,
  luma: Float[np.ndarray, "h w"],
  mask: Bool[np.ndarray, "h w"],
  scale: float,
) -> float:
  size = tuple(max(1, round(side * scale)) for side in picture.size)
  small = picture.resize(size, Image.Resampling.LANCZOS)
  back = np.asarray(small.resize(picture.size, Image.Resampling.LANCZOS))
  return float(np.sqrt(np.mean(np.square(back - luma)[mask])))
