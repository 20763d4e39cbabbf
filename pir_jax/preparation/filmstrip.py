"""A strip of frames through a clip, with what was found drawn in.

h height, w width, n frames, l landmarks.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pir_jax.media import crops, video_reader
from pir_jax.preparation import tracking

NUM_FRAMES = 6
SIDE = 224  # Pixels of a frame on the strip.
_LABEL = 20
_GAP = 4
_QUALITY = 75
_DOT = (40, 230, 120)
_OUTLINE = (255, 200, 0)
_WORST = (190, 40, 30)
# A longer way to the next frame is not read but jumped over.
_JUMP = 5.0  # Seconds.
# fmt: off
OVAL = (
  10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378,
  400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21,
  54, 103, 67, 109)
# fmt: on


def draw(seen: tracking.Footage) -> bytes:
  """A JPEG of frames spread evenly over the clip and the worst fitted one.

  Dots are the landmarks that were followed, the line is the outline of what
  the third network paints.

  Raises:
    ValueError: no frame was measured.
  """
  measured = np.flatnonzero(seen.measured)
  if not len(measured):
    raise ValueError("no frame shows the face: there is nothing to draw")
  error = seen.track.error[measured] / seen.track.face_height[measured]
  worst = int(measured[error.argmax()])
  even = spread(measured, NUM_FRAMES)
  if worst not in even:
    even = [worst, *spread(measured, NUM_FRAMES - 1)]
  chosen = np.array(sorted(even))
  masks = seen.face_masks(chosen, SIDE)
  cells = []
  for (index, image), mask in zip(frames(seen, chosen), masks, strict=True):
    time = float(seen.track.times[index])
    label = f"{time:.2f} s"
    if index == worst:
      label += f": worst fit, {100 * float(error.max()):.1f} %"
    cells.append(_cell(seen, index, image, mask, label, index == worst))
  width = len(cells) * (SIDE + _GAP) - _GAP
  sheet = Image.new("RGB", (width, SIDE + _LABEL), "white")
  for number, cell in enumerate(cells):
    sheet.paste(cell, (number * (SIDE + _GAP), 0))
  file = io.BytesIO()
  # Half the colour resolution would wash out single dots.
  sheet.save(file, "JPEG", quality=_QUALITY, subsampling=0)
  return file.getvalue()


def spread(frames: Int[np.ndarray, "_"], count: int) -> list[int]:
  """At most `count` of some frames, evenly spread, ends included."""
  places = np.linspace(0, len(frames) - 1, min(count, len(frames)))
  return [int(frame) for frame in frames[places.round().astype(int)]]


def frames(
  seen: tracking.Footage, chosen: Sequence[int] | Int[np.ndarray, "_"]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (index, picture) of some frames, in order, without reading all."""
  times = seen.track.times
  reader, at = None, 0.0
  for index in sorted(int(i) for i in chosen):
    wanted = float(times[index])
    if reader is None or wanted - at > _JUMP:
      reader = video_reader.read_frames(seen.path, start=wanted)
    for time, image in reader:
      at = float(time)
      # Half a millisecond: times went through floats.
      if at > wanted - 5e-4:
        yield index, image
        break


def points(seen: tracking.Footage, index: int) -> Float[np.ndarray, "l 2"]:
  """Landmarks of a frame in source pixels."""
  window = seen.track.window[index]
  corner = window[:2] - window[2] / 2
  found = seen.track.landmarks[index][:, :2] * window[2] + corner
  return np.asarray(found, np.float64)


def face(
  image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "l 2"]
) -> tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]:
  """The part of a picture around a face, and where in it the face is."""
  size = np.array(image.shape[1::-1])
  low = np.floor(landmarks.min(0)).astype(int).clip(0, size - 1)
  high = np.ceil(landmarks.max(0)).astype(int).clip(low + 1, size)
  crop = image[low[1] : high[1], low[0] : high[0]]
  mask = Image.new("1", crop.shape[1::-1])
  outline = [tuple(map(float, p)) for p in landmarks[list(OVAL)] - low]
  ImageDraw.Draw(mask).polygon(outline, fill=1)
  return crop, np.array(mask)


def _cell(seen, index, image, mask, label, is_worst) -> Image.Image:
  window = seen.track.window[index]
  crop = crops.crop_window(image, window, SIDE)
  outline = mask ^ ndimage.binary_erosion(mask)
  crop[outline] = _OUTLINE
  spots = (seen.track.landmarks[index][:, :2] * SIDE).astype(int)
  inside = ((spots >= 0) & (spots < SIDE)).all(1)
  across, down = spots[inside].T
  crop[down, across] = _DOT
  cell = Image.new("RGB", (SIDE, SIDE + _LABEL), "white")
  cell.paste(Image.fromarray(crop), (0, _LABEL))
  ink = ImageDraw.Draw(cell)
  colour = _WORST if is_worst else (60, 60, 60)
  ink.text((2, 2), label, fill=colour, font=ImageFont.load_default(size=13))
  return cell
