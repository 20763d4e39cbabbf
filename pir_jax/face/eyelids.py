"""The eyelids' outline, more exact than the face mesh's.

The mesh hardly follows a closing eye: its lids stay 60 % as far apart as when
open. MediaPipe's iris network takes a crop of each eye and leaves 25 %.

h height, w width, l landmarks of the face mesh.
"""

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax import assets
from pir_jax.face import detector

# The network's first points: the lower lid from the outer corner to the inner
# one, then the upper lid without the corners; in the face mesh's numbering.
RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133)
RIGHT += (246, 161, 160, 159, 158, 157, 173)
LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362)
LEFT += (466, 388, 387, 386, 385, 384, 398)
_SIZE = 64
_PADDING = 2.3  # Side of the crop over the eye's width, as MediaPipe cuts it.
_NUM_OUTLINE = 71
# Corners further off than this share of the eye's width are a failure: hair,
# glasses or the head's turn hides the eye.
_STRAY = 0.25


class Eyes:
  """The network and the geometry around it."""

  def __init__(self):
    self._network = detector.Network(str(assets.fetch("eye_mesh")))

  def refine(
    self, image: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "l 3"]
  ) -> Float[np.ndarray, "l 3"]:
    """Returns the landmarks with x and y of the eyelids refined.

    An eye whose outline is far from the mesh's stays as it is.

    Args:
      image: RGB.
      points: of the face mesh, pixels.
    """
    refined = points.copy()
    # The network knows right eyes; a left one is shown to it in a mirror.
    for lids, mirrored in ((RIGHT, False), (LEFT, True)):
      outline = self._outline(image, points[list(lids), :2], mirrored)
      corners = points[[lids[0], lids[8]], :2]
      width = np.linalg.norm(corners[1] - corners[0])
      stray = np.linalg.norm(outline[[0, 8]] - corners, axis=-1).max()
      if stray < _STRAY * width:
        refined[list(lids), :2] = outline
    return refined

  def _outline(self, image, lids, mirrored):
    outer, inner = lids[0], lids[8]
    left, right = (inner, outer) if mirrored else (outer, inner)
    centre, span = (left + right) / 2, right - left
    side = _PADDING * float(np.abs(span).max())
    angle = float(np.arctan2(span[1], span[0]))
    x, y = (float(value) for value in centre)
    crop = detector.sample(image, detector.Region(x, y, side, angle), _SIZE)
    if mirrored:
      crop = crop[:, ::-1]
    outline = self._network(crop.astype(np.float32) / 255)[3 * _NUM_OUTLINE]
    local = outline.reshape(-1, 3)[: len(lids), :2] / _SIZE - 0.5
    if mirrored:
      local = local * [-1, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return local * side @ np.array([[cos, sin], [-sin, cos]]) + centre
