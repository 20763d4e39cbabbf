"""Learned perceptual distance (Zhang et al. 2018) of frames in [0, 1].

t frames, h height, w width.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from pir_jax.metrics import psnr
from pir_jax.models import vgg

# Below this a box leaves the deepest layer (1/16 of the size) hardly a pixel.
_SMALLEST_BOX = 64


class Distance:
  """Computes LPIPS, compiled once for each image size.

  Report the network with the value: AlexNet's is the customary metric, and
  VGG's values have another scale.
  """

  def __init__(
    self,
    network: vgg.Lpips,
    *,
    batch: int = 8,
    compiler_options: dict[str, Any] | None = None,
  ):
    if network.num_layers != vgg.NUM_LAYERS:
      raise ValueError(
        f"a network of {network.num_layers} layers does not give the published "
        f"distance: load it with num_layers={vgg.NUM_LAYERS}"
      )
    graph, self._state = nnx.split(network)
    self._batch = batch
    self._apply = jax.jit(
      lambda state, a, b: nnx.merge(graph, state)(a, b),
      compiler_options=compiler_options,
    )

  def __call__(
    self,
    frames: psnr.Frames,
    target: psnr.Frames,
    mask: psnr.Mask | None = None,
  ) -> Float[np.ndarray, "t"]:
    """Computes each frame's distance, 0 for equal frames.

    With a mask (our choice; the published distance has none), pixels outside
    mask > 0.5 are the target's in both, and the distance is that of the box
    around the masks of all frames, so that box and scale are the same
    throughout a clip.

    Raises:
      ValueError: float frames outside [0, 1], or a mask that is empty
        throughout.
    """
    frames, target = psnr.to_unit(frames), psnr.to_unit(target)
    if mask is not None:
      inside = mask > 0.5
      frames = np.where(inside, frames, target)
      rows, columns = bounding_box(inside[..., 0])
      frames = frames[:, rows, columns]
      target = target[:, rows, columns]
    values = []
    for start in range(0, len(frames), self._batch):
      part = slice(start, start + self._batch)
      values.append(self._measure(frames[part], target[part]))
    return np.concatenate(values) if values else np.empty(0)

  def _measure(self, frames, target):
    """Evaluates one batch, padded to its full size to avoid recompiling."""
    num = len(frames)
    pad = ((0, self._batch - num), (0, 0), (0, 0), (0, 0))
    a, b = (
      jnp.asarray(np.pad(x * 2 - 1, pad), jnp.float32) for x in (frames, target)
    )
    return np.asarray(self._apply(self._state, a, b)[:num], np.float64)


def bounding_box(
  inside: np.ndarray, smallest: int = _SMALLEST_BOX
) -> tuple[slice, slice]:
  """Returns rows and columns that hold all True of (t, h, w), or a few more.

  A side shorter than `smallest` is widened evenly, as far as the frame goes.

  Raises:
    ValueError: nothing is True.
  """
  if not inside.any():
    raise ValueError(
      "the mask is empty in every frame: measure without it, or check the masks"
    )
  slices = []
  for axis in (1, 2):
    other = tuple({0, 1, 2} - {axis})
    where = np.flatnonzero(inside.any(other))
    low, high = int(where[0]), int(where[-1]) + 1
    size = inside.shape[axis]
    want = min(max(high - low, smallest), size)
    start = min(max(low - (want - (high - low)) // 2, 0), size - want)
    slices.append(slice(start, start + want))
  return slices[0], slices[1]
