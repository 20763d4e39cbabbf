"""Makes the strip of a clip's frames that its report shows.

h height, w width, r side of a frame on the strip.
"""

import io

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pir_jax.media import crops
from pir_jax.preparation import quality, tracking

NUM_FRAMES = 6
SIDE = 224  # Pixels of a frame.
_LABEL = 20
_GAP = 4
_JPEG_QUALITY = 75
_DOT = (40, 230, 120)
_OUTLINE = (255, 200, 0)
_WORST = (190, 40, 30)


def make(tracked: tracking.TrackedVideo) -> bytes:
  """Makes a JPEG of frames spread over the clip and of the worst fitted one.

  Dots are the landmarks that were tracked, the line is the outline of what the
  third network inpaints.

  Raises:
    ValueError: no frame was measured.
  """
  measured = np.flatnonzero(tracked.measured)
  if not len(measured):
    raise ValueError("no frame shows the face: there is nothing to show")
  error = tracked.track.error[measured] / tracked.track.face_height[measured]
  worst = int(measured[error.argmax()])
  chosen = quality.spread(measured, NUM_FRAMES)
  if worst not in chosen:
    chosen = [worst, *quality.spread(measured, NUM_FRAMES - 1)]
  chosen = np.array(sorted(chosen))
  masks = tracked.face_masks(chosen, SIDE)
  pitch = SIDE + _GAP
  size = (len(chosen) * pitch - _GAP, SIDE + _LABEL)
  sheet = Image.new("RGB", size, "white")
  ink, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
  pictures = zip(tracked.pictures(chosen), masks, strict=True)
  for column, ((index, image), mask) in enumerate(pictures):
    label, colour = f"{float(tracked.track.times[index]):.2f} s", (60, 60, 60)
    if index == worst:
      label += f": worst fit, {100 * float(error.max()):.1f} %"
      colour = _WORST
    crop = _thumbnail(tracked, index, image, mask)
    sheet.paste(Image.fromarray(crop), (column * pitch, _LABEL))
    ink.text((column * pitch + 2, 2), label, fill=colour, font=font)
  file = io.BytesIO()
  # Half the colour resolution would wash out single dots.
  sheet.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
  return file.getvalue()


def _thumbnail(
  tracked: tracking.TrackedVideo,
  index: int,
  image: UInt8[np.ndarray, "h w 3"],
  mask: Bool[np.ndarray, "r r"],
) -> UInt8[np.ndarray, "r r 3"]:
  """Crops a frame to its window and marks outline and landmarks."""
  side = len(mask)
  crop = crops.crop_window(image, tracked.track.window[index], side)
  crop[mask ^ ndimage.binary_erosion(mask)] = _OUTLINE
  spots = (tracked.track.landmarks[index][:, :2] * side).astype(int)
  across, down = spots[((spots >= 0) & (spots < side)).all(1)].T
  crop[down, across] = _DOT
  return crop
