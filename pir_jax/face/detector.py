"""Face detection and dense landmarks on single images.

MediaPipe's short-range face detector and face mesh, run by LiteRT on the CPU.
Images are uint8 RGB; points and boxes are in pixels of the image, (0, 0) the
outer corner of its first pixel; z is in the same unit, smaller when nearer.

h height, w width, l landmarks, a anchors, n faces, r side of a square.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float, UInt8
from PIL import Image

from pir_jax import assets

NUM_LANDMARKS = 468
_DETECTOR_SIZE = 128
_MESH_SIZE = 192
_EYE_CORNERS = (33, 263)  # The outer ones, in the mesh's numbering.
MAX_FACES = 16  # Each costs time in every frame.
# Share of the frame's shorter side below which all faces may be small, and
# others too small for the whole frame at the network's size.
_SMALL = 0.35
_SURE = 0.75  # Least score in the smallest squares, which show much else.


class Region(NamedTuple):
  """A square of the frame, turned by an angle (radians) about its centre."""

  x: float
  y: float
  side: float
  angle: float


class Tracker:
  """The two networks and the geometry around them."""

  def __init__(self, min_detection: float = 0.5, min_presence: float = 0.5):
    """Loads the networks.

    Args:
      min_detection: least score of a detection.
      min_presence: least presence for a mesh to count.
    """
    self.min_detection = min_detection
    self.min_presence = min_presence
    self._detector = Network(str(assets.fetch("face_detector")))
    self._mesh = Network(str(assets.fetch("face_mesh")))
    self._anchors = _anchors()

  def detect(
    self, image: UInt8[np.ndarray, "h w 3"]
  ) -> Float[np.ndarray, "n 9"]:
    """Detects faces, largest first: x0, y0, x1, y1, right eye, left eye, score.

    The whole frame is searched; if that shows no face, the squares that tile a
    long frame are; and if these show none or small ones alone, squares of half
    their side. At most MAX_FACES are returned.
    """
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    faces = np.zeros((0, 9))
    for side in (float(long), float(short), short / 2):
      if len(faces) and (
        side == short or np.ptp(faces[:, 1:4:2], 1).max() > _SMALL * short
      ):
        continue
      here = [self._detect_in(image, r) for r in _tiles(width, height, side)]
      here = np.concatenate(here)
      if side < short:
        here = here[here[:, 8] >= _SURE]
      faces = np.concatenate([faces, here])
    faces = _suppress(faces[np.argsort(-faces[:, 8])])
    faces = faces[np.argsort(-np.ptp(faces[:, 1:4:2], 1))]
    return faces[:MAX_FACES].astype(np.float32)

  def _detect_in(self, image: np.ndarray, region: Region) -> np.ndarray:
    crop = sample(image, region, _DETECTOR_SIZE) / np.float32(127.5) - 1
    outputs = self._detector(crop)
    boxes = outputs[16].reshape(-1, 16).astype(np.float64) / _DETECTOR_SIZE
    logits = np.clip(outputs[1].reshape(-1), -100, 100)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    good = scores >= self.min_detection
    boxes, anchors, scores = boxes[good], self._anchors[good], scores[good]
    centre, half = boxes[:, :2] + anchors, boxes[:, 2:4] / 2
    rows = [centre - half, centre + half]
    rows += [boxes[:, 4:6] + anchors, boxes[:, 6:8] + anchors]
    corner = np.array([region.x, region.y]) - region.side / 2
    rows = [row * region.side + corner for row in rows]
    return np.concatenate([*rows, scores[:, None]], axis=1)

  def landmarks(
    self,
    image: UInt8[np.ndarray, "h w 3"],
    box: Float[np.ndarray, "4"] | None = None,
  ) -> tuple[Float[np.ndarray, "l 3"], float]:
    """Returns the landmarks of one face of an image, and its presence.

    Args:
      image: RGB.
      box: x0, y0, x1, y1 around the landmarks if the face's place is known;
        else the largest face is taken.

    Returns:
      Points (NaN where there is no face) and presence (0 where there is none).
    """
    if box is not None:
      regions = [_around(box, 0.0)]
    else:
      regions = [region_of_detection(face) for face in self.detect(image)]
    faces = [self.refine(image, region) for region in regions]
    faces = [face for face in faces if face[1] >= self.min_presence]
    if not faces:
      return np.full((NUM_LANDMARKS, 3), np.nan, np.float32), 0.0
    return max(faces, key=lambda face: np.ptp(face[0][:, 1]))

  def refine(
    self, image: np.ndarray, region: Region
  ) -> tuple[np.ndarray, float]:
    """Runs the mesh twice, the second time on the square around its points.

    The result then hardly depends on the initial square, so that points do not
    jump when a face is detected again.
    """
    points, presence = self._run_mesh(image, region)
    if presence < self.min_presence:
      return points, presence
    return self._run_mesh(image, region_of_points(points))

  def _run_mesh(
    self, image: np.ndarray, region: Region
  ) -> tuple[np.ndarray, float]:
    outputs = self._mesh(sample(image, region, _MESH_SIZE) / np.float32(255))
    points = outputs[3 * NUM_LANDMARKS].reshape(-1, 3).astype(np.float64)
    logit = float(outputs[1].reshape(()))
    points = points / _MESH_SIZE - [0.5, 0.5, 0]
    points = points * region.side
    cos, sin = np.cos(region.angle), np.sin(region.angle)
    points[:, :2] = points[:, :2] @ np.array([[cos, sin], [-sin, cos]])
    points[:, :2] += [region.x, region.y]
    return points.astype(np.float32), float(1 / (1 + np.exp(-logit)))


def _tiles(width: int, height: int, side: float) -> list[Region]:
  """Returns squares that cover a frame, each overlapping the next by half."""
  middles = []
  for length in (width, height):
    count = 1 if length <= side else int(np.ceil(2 * length / side)) - 1
    ends = (side / 2, length - side / 2) if count > 1 else (length / 2,) * 2
    middles.append(np.linspace(*ends, count))
  return [Region(x, y, side, 0.0) for y in middles[1] for x in middles[0]]


class Network:
  """A .tflite file: one image in, its outputs keyed by their last size."""

  def __init__(self, path: str):
    with _quiet():
      self._interpreter = Interpreter(model_path=path, num_threads=1)
      self._interpreter.allocate_tensors()
    self._input = self._interpreter.get_input_details()[0]["index"]
    self._outputs = self._interpreter.get_output_details()

  def __call__(self, image: np.ndarray) -> dict[int, np.ndarray]:
    tensor = np.ascontiguousarray(image[None], np.float32)
    self._interpreter.set_tensor(self._input, tensor)
    self._interpreter.invoke()
    return {
      int(d["shape"][-1]): self._interpreter.get_tensor(d["index"])
      for d in self._outputs
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Drops what LiteRT writes to standard error about itself."""
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def _anchors() -> Float[np.ndarray, "a 2"]:
  """Returns the anchors' centres: 16x16 twice, then 8x8 six times."""
  rows = []
  for size, repeats in ((16, 2), (8, 6)):
    y, x = np.mgrid[:size, :size]
    centres = (np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) / size
    rows.append(np.repeat(centres, repeats, axis=1).reshape(-1, 2))
  return np.concatenate(rows)


def _suppress(faces: np.ndarray) -> np.ndarray:
  """Merges overlapping boxes by weighted non-maximum suppression."""
  kept = []
  while len(faces):
    near = np.array([overlap(faces[0, :4], f[:4]) > 0.3 for f in faces])
    near[0] = True
    group = faces[near]
    mean = np.average(group[:, :8], axis=0, weights=group[:, 8])
    kept.append(np.append(mean, group[0, 8]))
    faces = faces[~near]
  return np.array(kept).reshape(-1, 9)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
  """Computes the intersection over union of two boxes."""
  inner = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
  inner = np.prod(np.maximum(inner, 0))
  union = np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - inner
  return float(inner / max(union, 1e-9))


def box_of(points: np.ndarray) -> np.ndarray:
  return np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])


def _around(box: np.ndarray, angle: float) -> Region:
  """Returns MediaPipe's square: 1.5 times the box's longer side."""
  x, y = (box[:2] + box[2:4]) / 2
  side = 1.5 * float((box[2:4] - box[:2]).max())
  return Region(float(x), float(y), side, angle)


def region_of_detection(face: np.ndarray) -> Region:
  right, left = face[4:6], face[6:8]
  angle = np.arctan2(left[1] - right[1], left[0] - right[0])
  return _around(face[:4], float(angle))


def region_of_points(points: np.ndarray) -> Region:
  right, left = points[list(_EYE_CORNERS), :2]
  angle = np.arctan2(left[1] - right[1], left[0] - right[0])
  return _around(box_of(points), float(angle))


def sample(
  image: UInt8[np.ndarray, "h w 3"], region: Region, size: int
) -> UInt8[np.ndarray, "r r 3"]:
  """Resamples a region to size x size pixels, black outside the frame."""
  height, width = image.shape[:2]
  shrink = max(int(region.side / size), 1)
  cos, sin = np.cos(region.angle), np.sin(region.angle)
  extent = region.side / 2 * (abs(cos) + abs(sin)) + 2
  low = [max(int(c - extent), 0) // shrink * shrink for c in region[:2]]
  high = [max(int(c + extent) + shrink, 0) for c in region[:2]]
  patch = image[low[1] : high[1], low[0] : high[0]]
  if not patch.size:
    return np.zeros((size, size, 3), np.uint8)
  patch = Image.fromarray(np.ascontiguousarray(patch))
  if shrink > 1:
    # Means of whole blocks first: bilinear alone would skip rows of the frame.
    patch = patch.reduce(shrink)
  # Pillow stops half a pixel before an edge; a border moves the edge out.
  framed = Image.new("RGB", (patch.width + 2, patch.height + 2))
  framed.paste(patch, (1, 1))
  step = region.side / size / shrink
  x, y = (
    (c - start) / shrink + 1 for c, start in zip(region[:2], low, strict=True)
  )
  half = size / 2
  right, down = step * cos, step * sin
  matrix = (right, -down, x - (right - down) * half)
  matrix += (down, right, y - (down + right) * half)
  resampled = framed.transform(
    (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
  )
  return np.asarray(resampled)
