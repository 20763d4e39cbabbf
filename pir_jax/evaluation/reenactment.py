"""Held-out frames inpainted by a trained person, beside what could replace it.

Every row is pasted into the target frame in the same way, so that rows differ
in the face alone.
t frames, h side of the windows compared, r side of the network's windows, e
expression coefficients, k landmarks.
"""

import json
import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image

from pir_jax.data import sources
from pir_jax.data.dataset import Clip
from pir_jax.evaluation import mask_leakage
from pir_jax.face import detector, morphable
from pir_jax.inference.person import Person, load
from pir_jax.media import blending, plots, video_reader, video_writer
from pir_jax.metrics import (
  jitter,
  landmarks,
  lpips,
  psnr,
  seam,
  sharpness,
  ssim,
)
from pir_jax.runs import audio_expressions, frozen_networks
from pir_jax.runtime import compiler_options
from pir_jax.types import FRAME_RATE, Cameras

SIZE = 512  # Side of the windows compared.
MAX_FRAMES = 200  # Of a long tail: bounds memory to a few GB.
_NUM_RUNS = 4  # In which they are taken: jitter needs frames in a row.
# How far from the changed region's outline inwards seams are measured, and with
# which blur the step from side to side of that band; shares of the side.
FEATHER = blending.FEATHER
STEP = FEATHER / 4

TARGET = "ground truth, re-encoded"
PASTED = "ground truth, pasted back"
OTHER_MOMENT = "ground truth, other moment"
FROZEN = "frozen mouth"
STAGE2_FITTED = "stage 2 alone, fitted"
STAGE2_AUDIO = "stage 2 alone, audio-driven"
FITTED = "ours, fitted expression"
AUDIO_DRIVEN = "ours, audio-driven"

_LEGEND = """\
LPIPS: AlexNet. sharp: energy of the Laplacian, the ground truth's is 1. LMD:
distance of 40 lip points of MediaPipe's face mesh, centred, px. seam: mean
gradient of luma across the mask's outline, the target's at the same place is 1,
a step is more, a blur less; edge: 2 px either side; feather: in the band that
fades in; tone: there, after a blur that leaves light and shade. jitter: RMS
second difference of landmarks that speech does not move, the target's is 1."""

Path = str | pathlib.Path
Pictures = UInt8[np.ndarray, "t h h 3"]


class HeldOut(NamedTuple):
  """The held-out frames of a clip.

  Attributes:
    index: of each in the clip.
    target: windows at SIZE.
    mask: what is inpainted, at SIZE.
    mouth: the lips over the whole range of their motion, at SIZE.
    image: windows at the network's size, in [-1, 1].
    cover: the mask at the network's size.
    head: the head with its hair, at the network's size.
    cameras: of the windows.
    fitted: expressions of the fit.
    predicted: expressions predicted from the clip's own sound; None without.
    boxes: around the landmarks, in pixels of `target`.
  """

  index: Int[np.ndarray, "t"]
  target: Pictures
  mask: Float[np.ndarray, "t h h 1"]
  mouth: Float[np.ndarray, "t h h 1"]
  image: Float[np.ndarray, "t r r 3"]
  cover: Float[np.ndarray, "t r r 1"]
  head: Float[np.ndarray, "t r r 1"]
  cameras: Cameras
  fitted: Float[np.ndarray, "t e"]
  predicted: Float[np.ndarray, "t e"] | None
  boxes: Float[np.ndarray, "t 4"]


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


def read_held_out(clip: Clip, person: Person) -> HeldOut:
  """Reads the held-out frames of a prepared clip."""
  large = _stack(sources.FrameSource(clip, resolution=SIZE, split="held_out"))
  small = _stack(
    sources.FrameSource(clip, resolution=person.resolution, split="held_out")
  )
  points = clip.track.landmarks[large["index"]] * SIZE
  return HeldOut(
    index=large["index"],
    target=blending.to_bytes(large["image"]),
    mask=large["mask"],
    mouth=large["mouth"],
    image=small["image"],
    cover=small["mask"],
    head=small["head"],
    cameras=Cameras(small["pose"], small["intrinsics"]),
    fitted=small["expression"],
    predicted=_predicted(clip, person, large["index"]),
    boxes=np.concatenate([points.min(1), points.max(1)], axis=1),
  )


def _stack(source) -> dict[str, np.ndarray]:
  """Stacks items of a source, at most MAX_FRAMES of them."""
  names = ("image", *sources.MASKS, "pose", "intrinsics", "expression")
  items = []
  for i in in_runs(len(source), MAX_FRAMES):
    item = source[int(i)]
    items.append({name: item[name] for name in (*names, "index")})
  return {name: np.stack([item[name] for item in items]) for name in items[0]}


def in_runs(num: int, most: int) -> Int[np.ndarray, "_"]:
  """Returns at most `most` of `num` places: a few evenly spaced runs."""
  if num <= most:
    return np.arange(num)
  length = most // _NUM_RUNS
  starts = np.linspace(0, num - length, _NUM_RUNS).round().astype(int)
  return np.unique(starts[:, None] + np.arange(length))


def _predicted(clip, person, index):
  """Predicts some frames from the clip's own sound; without it, the mean."""
  predicted, known = audio_expressions.expressions(
    person.in_step(clip), person.predict_expression
  )
  if not known.any():
    return None
  mean = person.stats.mean
  return np.float32(np.where(known[:, None], predicted, mean)[index])


def rows(held_out: HeldOut, person: Person) -> dict[str, Pictures]:
  """Makes the windows of every row, at SIZE.

  Two are of true faces: the frame's own, which is the most that any network of
  this resolution could do, and that of another moment, a third of the tail
  away: as sharp, and its lips wrong.
  """

  def inpaint(expression):
    windows = (held_out.image, held_out.cover, held_out.cameras)
    return person.inpaint(*windows, np.float32(expression))

  def render(expression):
    image = _resized(
      person.render_images(np.float32(expression), held_out.cameras),
      person.resolution,
    )
    # Stage 2's own background is black, and colours are matched about the
    # mask: the black would have it too bright.
    return np.where(held_out.head > 0, image, held_out.image)

  frozen = np.broadcast_to(person.stats.mean, held_out.fitted.shape)
  faces = {
    PASTED: held_out.image,
    OTHER_MOMENT: other_moment(held_out.image),
    FROZEN: inpaint(frozen),
    STAGE2_FITTED: render(held_out.fitted),
    FITTED: inpaint(held_out.fitted),
  }
  if held_out.predicted is not None:
    faces[STAGE2_AUDIO] = render(held_out.predicted)
    faces[AUDIO_DRIVEN] = inpaint(held_out.predicted)
  result = {TARGET: _reencode(held_out.target)}
  for name, images in faces.items():
    result[name] = pasted(held_out.target, images, held_out.cover)
  return result


def other_moment(values: Shaped[np.ndarray, "t *n"]) -> np.ndarray:
  """Moves values by a third of the frames, circularly."""
  return np.roll(values, len(values) // 3, axis=0)


def pasted(
  target: Pictures,
  faces: Float[np.ndarray, "t r r 3"],
  cover: Float[np.ndarray, "t r r 1"],
) -> Pictures:
  """Pastes windows into the target's as `reenact` does into frames."""
  side = target.shape[1]
  window = np.array([side / 2, side / 2, side], np.float32)
  frames = zip(target, faces, cover[..., 0] > 0, strict=True)
  return np.stack([blending.paste(x, window, y, m) for x, y, m in frames])


def _resized(images, side: int) -> np.ndarray:
  """Resizes images in [-1, 1]."""
  if images.shape[1] == side:
    return images
  small = (Image.fromarray(x) for x in blending.to_bytes(images))
  large = [x.resize((side, side), Image.Resampling.BICUBIC) for x in small]
  return np.stack([np.asarray(x) for x in large]).astype(np.float32) / 127.5 - 1


def _reencode(frames: Pictures) -> Pictures:
  """Encodes and decodes the frames with the codec of `reenact`."""
  size = (frames.shape[2], frames.shape[1])
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "target.mp4"
    with video_writer.VideoWriter(path, size, Fraction(FRAME_RATE)) as sink:
      for frame in frames:
        sink.write(frame)
    return np.stack([image for _, image in video_reader.read_frames(path)])


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
  changed = [blending.changed_region(x, target.shape[1]) for x in covers]
  edges = Edges(np.stack(changed))
  target_points = _track(target, held_out.boxes, tracker)
  target_edges = edges.gradients(target)
  target_detail = sharpness.energy(target, mouth)
  target_jitter = jitter.acceleration(
    target_points[:, morphable.RIGID], held_out.index
  )
  table = {}
  for name, images in frames.items():
    points = _track(images, held_out.boxes, tracker)
    index = held_out.index
    if name == OTHER_MOMENT:  # Where that row jumps, nobody trembles.
      index = other_moment(index)
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
    )
  return table


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
  heads = ("edge", "feather", "tone", "jitter")
  lines += ["", f"{'':28}{'seam':^27}".rstrip()]
  lines.append(" " * 28 + "".join(f"{name:>9}" for name in heads))
  for name, row in table.items():
    lines.append(f"{name:28}" + "".join(f"{v:9.2f}" for v in row[-4:]))
  return "\n".join([*lines, "", _LEGEND])


def evaluate(person: Person | Path, data: Clip | Path, output: Path) -> str:
  """Writes the report on a person's held-out frames; returns its tables.

  Args:
    person: from `load`, or the folder of its runs.
    data: a prepared clip, or its folder; its own identity is taken.
    output: folder for table.txt, table.json and held_out.png.

  Raises:
    InputError: the networks or the data are not whole.
  """
  output = pathlib.Path(output)
  clip = data if isinstance(data, Clip) else Clip.open(data)
  if not isinstance(person, Person):
    person = load(person)
  person = person.with_identity(clip.identity, clip.expression_stats)
  held_out = read_held_out(clip, person)
  frames = rows(held_out, person)
  table = measure(held_out, frames)
  readings = mask_leakage.read(clip, person.resolution)
  source = clip.manifest.source + person.prior
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
  del frames[TARGET]
  sheet = {"real": held_out.target} | frames
  plots.contact_sheet(sheet, num_columns=6).save(output / "held_out.png")
  return text
