"""What a picture shows of a face: the mesh has landmarks for hidden lips too.

The evidence for visible lips is a linear function of histograms of gradients
and of colours about the mouth, fitted by experiments/sight.py to faces whose
mouths were covered by many kinds of things. The other figures are counts of
pixels, their limits ours (`preparation/quality_rules`).

t frames, l landmarks, n side of a patch in cells.
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from pir_jax.face import detector

FILE = pathlib.Path(__file__).with_name("sight.npz")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CORNERS = (33, 263, 61, 291)  # Outer corners of the eyes, then of the mouth.
# The face's outline, points of the face mesh.
# fmt: off
OVAL = (
  10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378,
  400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21,
  54, 103, 67, 109)
# fmt: on
_MOUTH_SIZE, _CELL, _BINS = 48, 8, 9  # Of the histograms.
_MOUTH_SIDE = 1.25  # In distances between eyes, or eyes and mouth.
_FACE_SIZE, _FACE_SIDE = 128, 2.0  # Of the lower face, likewise.
_WHITE, _STROKE = 250, 18  # Grey levels; a stroke's edge is this steep.
_EVEN = 0.6  # Grey levels between neighbours of an even surface.
# Below this many pixels between eyes the patch is mostly made up.
_SMALLEST = 20


class Sight(NamedTuple):
  """What the pictures show; NaN in frames without the face.

  Attributes:
    mouth: evidence that the lips are seen; below 0 something hides them.
    outside: share of the face's outline that lies outside the picture.
    light: median luma of the lower face, 0 to 255.
    white: share of the lower face that is burnt out.
    strokes: light and dark edges by turns along a row of the lower face.
    even: share of the lower face without any shading, as in drawings.
    roll: tilt of the line between the eyes, degrees; 180 is upside down.
  """

  mouth: Float[np.ndarray, "t"]
  outside: Float[np.ndarray, "t"]
  light: Float[np.ndarray, "t"]
  white: Float[np.ndarray, "t"]
  strokes: Float[np.ndarray, "t"]
  even: Float[np.ndarray, "t"]
  roll: Float[np.ndarray, "t"]


def measure(
  image: UInt8[np.ndarray, "_ _ 3"], points: Float[np.ndarray, "l 3"]
) -> Float[np.ndarray, "7"]:
  """Measures one face; returns the fields of `Sight` in order.

  Args:
    image: RGB.
    points: of the face mesh, pixels.
  """
  weights, offset = _fitted()
  height, width = image.shape[:2]
  outline = points[list(OVAL), :2]
  outside = ((outline < 0) | (outline > (width, height))).any(1).mean()
  right, left, *_ = points[list(_CORNERS), :2]
  roll = np.degrees(np.arctan2(*(left - right)[::-1]))
  patch = detector.sample(image, *_lower_face(points)).astype(np.float32)
  luma = patch @ _LUMA
  across, down = (np.abs(np.diff(luma, axis=axis)) for axis in (1, 0))
  steps = np.maximum(across[1:], down[:, 1:])
  small = np.linalg.norm(left - right) < _SMALLEST
  return np.float32(
    [
      features(image, points) @ weights + offset,
      outside,
      np.median(luma),
      (patch.min(-1) >= _WHITE).mean(),
      0.0 if small else _strokes(luma),
      0.0 if small else (steps < _EVEN).mean(),
      roll,
    ]
  )


def features(
  image: UInt8[np.ndarray, "_ _ 3"], points: Float[np.ndarray, "l 3"]
) -> Float[np.ndarray, "_"]:
  """Describes the mouth: gradients of the log luma by direction, and colours.

  Whatever the light, it hardly changes.
  """
  region = _mouth(points)
  patch = detector.sample(image, region, _MOUTH_SIZE).astype(np.float32)
  log = np.log(patch + 8)
  grey = ndimage.gaussian_filter(np.log(patch @ _LUMA + 8), 0.8)
  down, right = np.gradient(grey)
  strength = 2 * np.hypot(right, down)
  angle = np.arctan2(down, right) % np.pi / np.pi * _BINS
  low = np.floor(angle).astype(int)
  share = angle - low
  num = _MOUTH_SIZE // _CELL
  rows, columns = np.indices(grey.shape) // _CELL
  cells = np.zeros((num, num, _BINS), np.float32)
  np.add.at(cells, (rows, columns, low % _BINS), strength * (1 - share))
  np.add.at(cells, (rows, columns, (low + 1) % _BINS), strength * share)
  whole = 4 * cells / (np.linalg.norm(cells) + 0.5)
  own = np.linalg.norm(cells, axis=-1, keepdims=True)
  tints = np.stack(
    [log[..., 0] - log[..., 1], log[..., 2] - log[..., 1], log[..., 1]]
  )
  tints -= np.median(tints, (1, 2), keepdims=True)
  coarse = tints.reshape(3, 8, _MOUTH_SIZE // 8, 8, _MOUTH_SIZE // 8)
  coarse = 2 * coarse.mean((2, 4))
  single = 0.5 * cells / (own + 0.15)
  return np.concatenate([whole.ravel(), single.ravel(), coarse.ravel()])


def _mouth(points: np.ndarray) -> detector.Region:
  size, angle, _, mouth = _frame(points)
  return detector.Region(*map(float, mouth), _MOUTH_SIDE * size, angle)


def _lower_face(points: np.ndarray) -> tuple[detector.Region, int]:
  size, angle, eyes, mouth = _frame(points)
  middle = (eyes + 2 * mouth) / 3
  region = detector.Region(*map(float, middle), _FACE_SIDE * size, angle)
  return region, _FACE_SIZE


def _frame(points: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
  """Returns size and tilt of the face, and the middles of eyes and mouth."""
  right, left, *mouth = points[list(_CORNERS), :2].astype(np.float64)
  eyes, mouth = (right + left) / 2, (mouth[0] + mouth[1]) / 2
  size = max(np.hypot(*(left - right)), np.hypot(*(eyes - mouth)), 1.0)
  return float(size), float(np.arctan2(*(left - right)[::-1])), eyes, mouth


def _strokes(luma: Float[np.ndarray, "_ _"]) -> float:
  """Counts the edges of alternating sign along the row that has most of them.

  Letters have dozens; teeth, lips and stubble a few.
  """
  slope = np.diff(luma, axis=1)
  sign = np.where(np.abs(slope) > _STROKE, np.sign(slope), 0)
  counts = np.zeros(len(sign))
  for row, values in enumerate(sign):
    steep = values[values != 0]
    counts[row] = np.count_nonzero(np.diff(steep))
  return float(ndimage.uniform_filter1d(counts, 5).max())


@functools.cache
def _fitted() -> tuple[np.ndarray, float]:
  with np.load(FILE, allow_pickle=False) as arrays:
    return arrays["weights"], float(arrays["offset"])
