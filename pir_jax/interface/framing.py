"""Where the head is in a browser's canvas, and the camera of that part alone.

Only there rays are worth their time; the rest of the canvas is empty. A window
is a rectangle in the plane through the head's middle that faces the camera, in
head units (left, top, right, bottom; down is positive), and the networks were
trained on pictures of it.

h and w height and width of a canvas, p and q of a picture.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pir_jax.inference import viewer as viewer_lib
from pir_jax.types import Cameras

_NEAREST = 0.3  # Head units from a camera at which nothing is shown.
_HIGHEST = 720  # Pixels of a canvas's height; browsers enlarge it further.


class Eye(NamedTuple):
  """A browser's camera and canvas.

  Attributes:
    pose: camera-to-world, OpenCV axes, head units.
    fov: vertical field of view, radians.
    width: of the canvas, pixels.
    height: of the canvas, pixels.
  """

  pose: Float[np.ndarray, "4 4"]
  fov: float
  width: int
  height: int


class Part(NamedTuple):
  """A part of a canvas, and the camera that sees it alone.

  Attributes:
    camera: without a batch axis.
    box: left, top, right, bottom, in shares of the canvas.
  """

  camera: Cameras
  box: tuple[float, float, float, float]


def window_of(
  view: viewer_lib.Viewpoint,
) -> tuple[float, float, float, float]:
  """The window that a viewpoint's camera sees."""
  k = view.intrinsics.astype(float)
  left, top = (-k[axis, 2] / k[axis, axis] for axis in (0, 1))
  right, bottom = ((1 - k[axis, 2]) / k[axis, axis] for axis in (0, 1))
  return tuple(float(view.distance * x) for x in (left, top, right, bottom))


def is_sane(eye: Eye) -> bool:
  """Whether a browser can have such a camera: what it sends may be anything."""
  sides = eye.width, eye.height
  return bool(
    np.isfinite(eye.pose).all()
    and 0.01 < eye.fov < 3.1
    and min(sides) >= 2
    and max(sides) <= 8 * min(sides)
  )


def part_with_head(
  eye: Eye, window: tuple[float, float, float, float]
) -> Part | None:
  """The part of the canvas that the window fills; None if it is outside."""
  pose = eye.pose.astype(float)
  x, y, depth = -pose[:3, :3].T @ pose[:3, 3]  # The head's middle.
  if depth < _NEAREST:
    return None
  focal_y = 0.5 / np.tan(eye.fov / 2)
  focal = np.array([focal_y * eye.height / eye.width, focal_y])
  corners = np.array([x, y]) + np.reshape(window, (2, 2))
  (left, top), (right, bottom) = np.clip(0.5 + focal * corners / depth, 0, 1)
  size = np.array([right - left, bottom - top])
  if np.any(size * (eye.width, eye.height) < 2):
    return None
  k = np.eye(3, dtype=np.float32)
  k[[0, 1], [0, 1]] = focal / size
  k[:2, 2] = (0.5 - np.array([left, top])) / size
  camera = Cameras(eye.pose.astype(np.float32), k)
  return Part(camera, (float(left), float(top), float(right), float(bottom)))


def on_canvas(
  picture: UInt8[np.ndarray, "p q 3"] | None,
  part: Part | None,
  eye: Eye,
  *,
  smooth: bool,
) -> UInt8[np.ndarray, "h w 3"]:
  """A picture in its part of a black canvas, of at most 720 rows.

  Args:
    picture: None for nothing.
    part: of the canvas.
    eye: whose canvas it is.
    smooth: enlarge it smoothly; else every pixel stays a square, so that what
      was not computed is not made up.
  """
  shrunk = min(1.0, _HIGHEST / eye.height)
  height, width = (max(1, round(shrunk * n)) for n in (eye.height, eye.width))
  canvas = np.zeros((height, width, 3), np.uint8)
  if picture is None or part is None:
    return canvas
  left, top, right, bottom = np.round(
    np.array(part.box) * (width, height, width, height)
  ).astype(int)
  size = max(1, right - left), max(1, bottom - top)
  method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
  enlarged = np.asarray(Image.fromarray(picture).resize(size, method))
  room = canvas[top : top + size[1], left : left + size[0]]
  room[:] = enlarged[: room.shape[0], : room.shape[1]]
  return canvas
