"""A label in the corner of frames, for eyes.

r rows and c columns of a frame, h and w of the label.
"""

import functools

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

TEXT = "AI-generated"
_HEIGHT, _LEAST = 1 / 28, 11  # Of letters: share of the side, and pixels.
_WIDTH = 0.45  # Most of the frame's.
_GROUND = 0.55  # Opacity of the dark ground: legible on light and on dark.


@functools.lru_cache(4)
def _label(
  height: int, width: int
) -> tuple[Float[np.ndarray, "h w 1"], Float[np.ndarray, "h w 1"]]:
  """Returns what is added to a frame in linear steps, and what is left of it.

  Args:
    height: of the frame.
    width: likewise.
  """
  size = max(_LEAST, round(_HEIGHT * min(height, width)))
  font = ImageFont.load_default(size)
  left, top, right, bottom = font.getbbox(TEXT)
  pad = size // 3
  box = (right - left + 2 * pad, bottom - top + 2 * pad)
  image = Image.new("L", box)
  place = (pad - left, pad - top)
  ImageDraw.Draw(image).text(place, TEXT, fill=255, font=font)
  most = (max(1, int(_WIDTH * width)), max(1, height // 4))
  if box[0] > most[0] or box[1] > most[1]:  # A tiny frame.
    share = min(most[0] / box[0], most[1] / box[1])
    image = image.resize([max(1, int(side * share)) for side in box])
  letters = np.asarray(image, np.float32)[..., None] / 255
  return 255 * letters, (1 - letters) * (1 - _GROUND)


def put(frame: UInt8[np.ndarray, "r c 3"]) -> UInt8[np.ndarray, "r c 3"]:
  """Returns the frame with the label in its lower right corner."""
  light, left = _label(*frame.shape[:2])
  result = frame.copy()
  height, width = light.shape[:2]
  corner = result[-height:, -width:]
  corner[:] = (light + left * corner + 0.5).astype(np.uint8)
  return result
