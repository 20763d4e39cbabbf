"""Held-out frames inpainted by a trained person, beside what could replace it.

t frames, h side of the windows compared, k landmarks.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.data.dataset import Clip
from pir_jax.evaluation import held_out_frames, mask_leakage
from pir_jax.evaluation.held_out_frames import SIZE, HeldOut, Pictures
from pir_jax.face import detector, morphable, resemblance
from pir_jax.inference.opening import load
from pir_jax.inference.person import Person
from pir_jax.media import blending, crops, plots
from pir_jax.metrics import (
  flicker,
  jitter,
  landmarks,
  lpips,
  psnr,
  seam,
  sharpness,
  ssim,
)
from pir_jax.runs import frozen_networks
from pir_jax.runtime import compiler_options

# How far from the changed region's outline inwards seams are measured, and with
# which blur the step from side to side of that band; shares of the side.
FEATHER = blending.FEATHER
STEP = FEATHER / 4

# Rows whose mouths are shown beside the real ones, and how large.
_CLOSE = (
  held_out_frames.PASTED,
  held_out_frames.FITTED,
  held_out_frames.AUDIO_DRIVEN,
)
_ENLARGED = 4
_AROUND = 1.1  # Side of the square that is shown; the mouth's range is 1.

_LEGEND = """\
LPIPS: AlexNet. sharp: energy of the Laplacian, the ground truth's is 1. LMD:
distance of 40 lip points of MediaPipe's face mesh, centred, px. seam: mean
gradient of luma across the mask's outline, the target's at the same place is 1,
a step is more, a blur less; edge: 2 px either side; feather: in the band that
fades in; tone: there, after a blur that leaves light and shade. jitter: RMS
second difference of landmarks that speech does not move, the target's is 1.
flicker: what changes inside the mask from frame to frame, once each place is
moved as it moved; lips left out; the target's is 1."""

Path = str | pathlib.Path


class Measured(NamedTuple):
  """One row; means over its frames, ratios over the whole of them.

  Attributes:
    psnr_mask, ssim_mask, lpips_mask: of what is inpainted.
    psnr, ssim, lpips: of the whole window.
    psnr_mouth, lpips_mouth: of the lips over the range of their motion.
    sharpness_mouth: energy of the Laplacian there; the target's is 1.
    mouth_distance: of the lip landmarks, pixels.
    seam_edge: gradient across the mask's outline; the target's is 1.
    seam_feather: the same within the band that fades in.
    seam_tone: the same there, blurred: steps of light, not texture.
    jitter: acceleration of landmarks on bone; the target's is 1.
    flicker: change of the inpainted frames that is not the head's motion, lips
      left out; the target's is 1.
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
  flicker: float


class Edges:
  """Where the seams of some frames are measured."""

  def __init__(self, masks: Bool[np.ndarray, "t h h"]):
    """Keeps the outlines of the changed regions, at the images' size."""
    self._side = masks.shape[-1]
    widths = (0.0, FEATHER * self._side)
    self._outline = [seam.band(mask) for mask in masks]
    self._feather = [seam.band(mask, widths) for mask in masks]

  def gradients(
    self, images: UInt8[np.ndarray, "t h h 3"]
  ) -> Float[np.ndarray, "3 t"]:
    """Measures across the outline, in the feather, and of its tone."""
    blur = STEP * self._side
    outline = seam.gradient(images, self._outline)
    feather = seam.gradient(images, self._feather)
    return np.stack(
      [outline, feather, seam.gradient(images, self._feather, blur)]
    )


def measure(
  held_out: HeldOut, frames: dict[str, Pictures]
) -> dict[str, Measured]:
  """Measures every row of the table."""
  network = frozen_networks.lpips_network("alex")
  distance = lpips.Distance(network, compiler_options=compiler_options.usual())
  tracker = detector.Tracker()
  target, mask, mouth = held_out.target, held_out.mask, held_out.mouth
  covers = held_out.cover[..., 0] > 0
  changed = changed_regions(covers, held_out.square, target.shape[1])
  edges = Edges(changed)
  steady = (mask[..., 0] > 0.5) & (mouth[..., 0] == 0)
  target_points = _track(target, held_out.boxes, tracker)
  target_edges = edges.gradients(target)
  target_detail = sharpness.energy(target, mouth)
  target_jitter = jitter.acceleration(
    target_points[:, morphable.RIGID], held_out.index
  )
  target_change = changes(target, steady, held_out.index)
  table = {}
  for name, images in frames.items():
    points = _track(images, held_out.boxes, tracker)
    index = held_out.index
    if name == held_out_frames.OTHER_MOMENT:
      # Where that row jumps, nobody trembles.
      index = held_out_frames.other_moment(index)
    change = changes(images, steady, index)
    moved = jitter.acceleration(points[:, morphable.RIGID], index)
    pairs = zip(edges.gradients(images), target_edges, strict=True)
    seams = [seam.ratio(*pair) for pair in pairs]
    similar, similar_maps = ssim.with_maps(images, target)
    table[name] = Measured(
      psnr_mask=_mean(psnr.psnr(images, target, mask)),
      ssim_mask=_mean(ssim.inside(similar_maps, mask)),
      lpips_mask=_mean(distance(images, target, mask)),
      psnr=_mean(psnr.psnr(images, target)),
      ssim=_mean(similar),
      lpips=_mean(distance(images, target)),
      psnr_mouth=_mean(psnr.psnr(images, target, mouth)),
      lpips_mouth=_mean(distance(images, target, mouth)),
      sharpness_mouth=sharpness.ratio(
        sharpness.energy(images, mouth), target_detail
      ),
      mouth_distance=_mouth_distance(points, target_points),
      seam_edge=seams[0],
      seam_feather=seams[1],
      seam_tone=seams[2],
      jitter=jitter.ratio(moved, target_jitter),
      flicker=flicker.ratio(change, target_change),
    )
  return table


def changed_regions(
  covers: Bool[np.ndarray, "t r r"],
  squares: Float[np.ndarray, "t 3"],
  side: int,
) -> Bool[np.ndarray, "t h h"]:
  """Returns what pasting may change of windows.

  Args:
    covers: the masks, of squares in the windows.
    squares: centre and side, in pixels of the windows.
    side: of the windows in pixels.
  """
  regions = np.zeros((len(covers), side, side), bool)
  for region, cover, (x, y, extent) in zip(
    regions, covers, squares, strict=True
  ):
    inside = blending.changed_region(cover, side, extent)
    places = [
      (np.arange(side) + 0.5 - middle + extent / 2) / extent * side
      for middle in (y, x)
    ]
    there = [(place >= 0) & (place < side) for place in places]
    chosen = [p[t].astype(int) for p, t in zip(places, there, strict=True)]
    region[np.ix_(*there)] = inside[np.ix_(*chosen)]
  return regions


def changes(
  images: Pictures,
  where: Bool[np.ndarray, "t h h"],
  index: Int[np.ndarray, "t"],
) -> Float[np.ndarray, "t"]:
  """Measures the flicker of each window against the one before.

  Args:
    images: the windows.
    where: the region that is measured.
    index: of the windows in their clip; NaN is returned where the one before
      is not there.
  """
  result = np.full(len(images), np.nan)
  for i in np.flatnonzero(np.diff(index) == 1) + 1:
    result[i] = flicker.change(images[i - 1], images[i], where[i])
  return result


def _track(images, boxes, tracker) -> Float[np.ndarray, "t k 2"]:
  """Detects each frame's landmarks, unsmoothed; NaN where no face is."""
  pairs = zip(images, boxes, strict=True)
  return np.stack([tracker.landmarks(*pair)[0] for pair in pairs])[..., :2]


def _mouth_distance(points: np.ndarray, target: np.ndarray) -> float:
  """Returns NaN where no row shows a face: it is too blurred yet."""
  points, target = (x[:, morphable.LIPS] for x in (points, target))
  if not (np.isfinite(points) & np.isfinite(target)).all((1, 2)).any():
    return float("nan")
  return landmarks.mouth_distance(points, target)


def _mean(values: Float[np.ndarray, "t"]) -> float:
  return float(np.nanmean(values))


def as_text(table: dict[str, Measured], num_frames: int, source: str) -> str:
  """Formats the table for a person."""
  groups = f"{'inside the mask':^21}{'whole window':^21}{'mouth':^28}"
  heads = ["PSNR", "SSIM", "LPIPS"] * 2 + ["PSNR", "LPIPS", "sharp", "LMD"]
  places = (2, 3, 3, 2, 3, 3, 2, 3, 2, 2)
  lines = [
    f"{source}: {num_frames} held-out frames, windows at {SIZE} px",
    " " * 28 + groups.rstrip(),
    " " * 28 + "".join(f"{name:>7}" for name in heads),
  ]
  for name, row in table.items():
    cells = zip(row, places, strict=False)
    lines.append(f"{name:28}" + "".join(f"{v:7.{n}f}" for v, n in cells))
  heads = ("edge", "feather", "tone", "jitter", "flicker")
  lines += ["", f"{'':28}{'seam':^27}".rstrip()]
  lines.append(" " * 28 + "".join(f"{name:>9}" for name in heads))
  for name, row in table.items():
    lines.append(f"{name:28}" + "".join(f"{v:9.2f}" for v in row[-5:]))
  return "\n".join([*lines, "", _LEGEND])


def evaluate(person: Person | Path, data: Clip | Path, output: Path) -> str:
  """Writes the report on a person's held-out frames; returns its tables.

  Args:
    person: from `load`, or the folder of its runs.
    data: a prepared clip, or its folder; its own identity is taken.
    output: folder for table.txt, table.json, held_out.png and mouths.png.

  Raises:
    InputError: the networks or the data are not whole.
  """
  output = pathlib.Path(output)
  clip = data if isinstance(data, Clip) else Clip.open(data)
  if not isinstance(person, Person):
    person = load(person)
  who = _who(person, clip)
  person = person.with_identity(clip.identity, clip.expression_stats)
  held_out = held_out_frames.read_held_out(clip, person)
  frames = held_out_frames.rows(held_out, person)
  table = measure(held_out, frames)
  readings = mask_leakage.read(clip, person.resolution)
  source = f"{clip.manifest.source}, {who}{person.prior}"
  text = as_text(table, len(held_out.target), source)
  text += "\n\n" + mask_leakage.as_text(readings)
  output.mkdir(parents=True, exist_ok=True)
  (output / "table.txt").write_text(text + "\n")
  plain = {
    "rows": {name: row._asdict() for name, row in table.items()},
    "leak": {
      name: {part: x._asdict() for part, x in pair._asdict().items()}
      for name, pair in readings.items()
    },
  }
  (output / "table.json").write_text(json.dumps(plain, indent=2) + "\n")
  del frames[held_out_frames.TARGET]
  sheet = {"real": held_out.target} | frames
  plots.contact_sheet(sheet, num_columns=6).save(output / "held_out.png")
  if held_out.mouth.any():
    mouths = {
      name: close_ups(images, held_out.mouth)
      for name, images in sheet.items()
      if name in ("real", *_CLOSE)
    }
    side = mouths["real"].shape[1]
    plots.contact_sheet(mouths, num_columns=4, side=side).save(
      output / "mouths.png"
    )
  return text


def _who(person: Person, clip: Clip) -> str:
  """Returns whose clip it is, for the table's title."""
  if any(known.sha256 == clip.manifest.sha256 for known in person.people):
    return "on which the networks were trained"
  alike = [known.resembles(clip.track.look) for known in person.people]
  alike = [value for value in alike if value is not None]
  if not alike:
    return "on which the networks were not trained"
  most = max(alike)
  if most < resemblance.SAME:
    return f"of SOMEBODY ELSE than was trained (resemblance {most:.2f})"
  return f"another video of the trained person (resemblance {most:.2f})"


def close_ups(
  images: Pictures, mouth: Float[np.ndarray, "t h h 1"]
) -> UInt8[np.ndarray, "_n _s _s 3"]:
  """Cuts a square of one size about the mouth, enlarged.

  Args:
    images: windows.
    mouth: where it may be in each, not 0; a window without it is left out.
  """
  seen = mouth.any((1, 2, 3))
  corners = []
  for region in mouth[seen, ..., 0] > 0:
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    corners.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
  corners = np.float32(corners)
  middles = (corners[:, :2] + corners[:, 2:]) / 2
  side = np.ceil(_AROUND * np.max(corners[:, 2:] - corners[:, :2]))
  return np.stack(
    [
      crops.crop_window(image, np.float32([x, y, side]), int(_ENLARGED * side))
      for image, (x, y) in zip(images[seen], middles, strict=True)
    ]
  )
