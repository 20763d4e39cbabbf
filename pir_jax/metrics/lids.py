"""How far the eyes are open, from landmarks of the lids.

t frames, l landmarks, d 2 or 3 axes.
"""

import numpy as np
from jaxtyping import Float

# MediaPipe's face mesh, right and left: upper lid, lower lid, the two corners.
EYES = ((159, 145, 33, 133), (386, 374, 263, 362))


def opening(
  landmarks: Float[np.ndarray, "*t l d"],
) -> Float[np.ndarray, "*t"]:
  """Measures the lids' gap as a share of the eyes' width, both eyes together.

  Args:
    landmarks: MediaPipe's, with the lids refined (see `face.eyelids`): those of
      the mesh alone hardly follow a closing eye.
  """

  def length(a, b):
    return np.linalg.norm(landmarks[..., a, :] - landmarks[..., b, :], axis=-1)

  gaps = sum(length(upper, lower) for upper, lower, _, _ in EYES)
  widths = sum(length(outer, inner) for _, _, outer, inner in EYES)
  return np.asarray(gaps / widths)
