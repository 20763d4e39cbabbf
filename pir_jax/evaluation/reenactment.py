"""What is measured of held-out frames painted anew, and the table of it.

t frames, h side of the windows compared, k landmarks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pir_jax.evaluation import comparison
from pir_jax.face import detector, morphable
from pir_jax.media import blending
from pir_jax.metrics import (
  jitter,
  landmarks,
  lpips,
  psnr,
  seam,
  sharpness,
  ssim,
)
from pir_jax.runs import frozen_networks

# How far from the mask's outline inwards seams are looked for, and with which
# blur the step from side to side of that band; shares of the side.
FEATHER = blending.FEATHER
STEP = FEATHER / 4

_LEGEND = """\
LPIPS: AlexNet. sharp: energy of the Laplacian, the truth's is 1. LMD: distance
of 40 lip points of MediaPipe's face mesh, centred, px. seam: mean gradient of
luma across the mask's outline, the true frames' at the same place is 1, a step
is more, a blur less; edge: 2 px either side; feather: in the band that fades
in; tone: there, after a blur that leaves light and shade. jitter: RMS second
difference of landmarks that speech does not move, the true frames' is 1."""


class Measured(NamedTuple):
  """One row; means over its frames, ratios over the whole of them.

  Attributes:
    psnr_mask, ssim_mask, lpips_mask: of what is painted.
    psnr, ssim, lpips: of the whole window.
    psnr_mouth, lpips_mouth: of the lips over the range of their motion.
    sharpness_mouth: energy of the Laplacian there; the truth's is 1.
    mouth_distance: of the lip landmarks, pixels.
    seam_edge: gradient across the mask's outline; the truth's is 1.
    seam_feather: the same within the band that fades in.
    seam_tone: the same there, blurred: steps of light, not texture.
    jitter: acceleration of landmarks on bone; the truth's is 1.
  """

  psnr_mask: float
  ssim_mask: float
  lpips_mask: float
  psnr: float
  ssim: float
  lpips: float
  psnr_mouth: float
  lpips_mouth: float
  sharpness_mouth: float
  mouth_distance: float
  seam_edge: float
  seam_feather: float
  seam_tone: float
  jitter: float


def track(
  images: UInt8[np.ndarray, "t h w 3"],
  boxes: Float[np.ndarray, "t 4"],
  tracker: detector.Tracker,
) -> Float[np.ndarray, "t k 2"]:
  """Landmarks of each frame by itself, unsmoothed; NaN where no face is."""
  points = [
    tracker.landmarks(image, box)[0]
    for image, box in zip(images, boxes, strict=True)
  ]
  return np.stack(points)[..., :2]


class Edges:
  """Where seams of some frames are looked for."""

  def __init__(self, masks: Bool[np.ndarray, "t h h"]):
    self._side = masks.shape[-1]
    widths = (0.0, FEATHER * self._side)
    self._outline = [seam.band(mask) for mask in masks]
    self._feather = [seam.band(mask, widths) for mask in masks]

  def gradients(
    self, images: UInt8[np.ndarray, "t h h 3"]
  ) -> Float[np.ndarray, "3 t"]:
    """Across the outline, in the feather, and of its tone."""
    return np.stack(
      [
        seam.gradient(images, self._outline),
        seam.gradient(images, self._feather),
        seam.gradient(images, self._feather, STEP * self._side),
      ]
    )


def _mouth_distance(points: np.ndarray, truth: np.ndarray) -> float:
  """Not a number where no face was found in a row: it is too blurred yet."""
  if not (np.isfinite(points) & np.isfinite(truth)).all((1, 2)).any():
    return float("nan")
  return landmarks.mouth_distance(points, truth)


def measure(
  given: comparison.HeldOut, frames: dict[str, comparison.Pictures]
) -> dict[str, Measured]:
  """Every row of the table."""
  distance = lpips.Distance(frozen_networks.lpips_network("alex"))
  tracker = detector.Tracker()
  truth = given.truth
  edges = Edges(given.mask[..., 0] > 0)
  true_points = track(truth, given.boxes, tracker)
  true_lips = true_points[:, morphable.LIPS]
  true_edges = edges.gradients(truth)
  true_detail = sharpness.energy(truth, given.mouth)
  true_jitter = jitter.acceleration(
    true_points[:, morphable.RIGID], given.index
  )
  table = {}
  for name, images in frames.items():
    points = track(images, given.boxes, tracker)
    # Where that row jumps, nobody trembles.
    jumps = name == comparison.ELSEWHEN
    index = comparison.elsewhen(given.index) if jumps else given.index
    moved = jitter.acceleration(points[:, morphable.RIGID], index)
    pairs = zip(edges.gradients(images), true_edges, strict=True)
    seams = [seam.ratio(*pair) for pair in pairs]
    table[name] = Measured(
      psnr_mask=_mean(psnr.psnr(images, truth, given.mask)),
      ssim_mask=_mean(ssim.ssim(images, truth, given.mask)),
      lpips_mask=_mean(distance(images, truth, given.mask)),
      psnr=_mean(psnr.psnr(images, truth)),
      ssim=_mean(ssim.ssim(images, truth)),
      lpips=_mean(distance(images, truth)),
      psnr_mouth=_mean(psnr.psnr(images, truth, given.mouth)),
      lpips_mouth=_mean(distance(images, truth, given.mouth)),
      sharpness_mouth=sharpness.ratio(
        sharpness.energy(images, given.mouth), true_detail
      ),
      mouth_distance=_mouth_distance(points[:, morphable.LIPS], true_lips),
      seam_edge=seams[0],
      seam_feather=seams[1],
      seam_tone=seams[2],
      jitter=jitter.ratio(moved, true_jitter),
    )
  return table


def as_text(table: dict[str, Measured], num_frames: int, source: str) -> str:
  """The table for a person."""
  groups = f"{'inside the mask':^21}{'whole window':^21}{'mouth':^28}"
  heads = ["PSNR", "SSIM", "LPIPS"] * 2 + ["PSNR", "LPIPS", "sharp", "LMD"]
  places = (2, 3, 3, 2, 3, 3, 2, 3, 2, 2)
  lines = [
    f"{source}: {num_frames} held-out frames, windows at {comparison.SIZE} px",
    " " * 28 + groups.rstrip(),
    " " * 28 + "".join(f"{name:>7}" for name in heads),
  ]
  for name, row in table.items():
    cells = zip(row, places, strict=False)
    lines.append(f"{name:28}" + "".join(f"{v:7.{n}f}" for v, n in cells))
  heads = ("edge", "feather", "tone", "jitter")
  lines += ["", f"{'':28}{'seam':^27}".rstrip()]
  lines.append(" " * 28 + "".join(f"{name:>9}" for name in heads))
  for name, row in table.items():
    lines.append(f"{name:28}" + "".join(f"{v:9.2f}" for v in row[-4:]))
  return "\n".join([*lines, "", _LEGEND])


def _mean(values: Float[np.ndarray, "t"]) -> float:
  return float(np.nanmean(values))
