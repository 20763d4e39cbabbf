"""How much detail a picture carries: the size to which it can be shrunk.

A file may say 1080p and have been enlarged from 360p, or be out of focus. What
can be shrunk and enlarged again without a visible loss has no finer detail.

h height, w width.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

_LUMA = (0.299, 0.587, 0.114)
# RMS error at which a loss counts as visible: a PSNR of 40 dB. Ours.
VISIBLE = 255 / 100
SCALES = tuple(0.9**step for step in range(1, 29))  # Down to 1/20.


def finest(
  image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> float:
  """Size in pixels of the finest detail inside a mask, 1.0 at the least.

  A picture that can be shrunk to a third without a visible loss carries detail
  down to 3 pixels. Noise counts as detail.

  Returns:
    1 / the smallest of SCALES from which the picture can be restored;
    interpolated. 1 / the last of them where nothing is lost there, either.

  Raises:
    ValueError: the mask is empty.
  """
  if not mask.any():
    raise ValueError("the mask is empty: draw it where the face is")
  luma = (image @ np.array(_LUMA)).astype(np.float32)
  picture = Image.fromarray(luma)
  before, scale_before = 0.0, 1.0
  for scale in SCALES:
    loss = _loss(picture, luma, mask, scale)
    if loss > VISIBLE:
      share = (VISIBLE - before) / (loss - before)
      return float(1 / (scale_before + share * (scale - scale_before)))
    before, scale_before = max(before, loss), scale
  return float(1 / SCALES[-1])


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
