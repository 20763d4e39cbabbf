"""How like the frames the implicit face is: the tri-plane stage measured alone.

Held-out frames are rendered from their own cameras and fitted expressions and
compared with the truth inside the head. Nothing is painted.
t frames, h and r sides of images, e expression and i identity coefficients.
"""

import io
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int, UInt8
from PIL import Image

from pir_jax.data import manifest, sources
from pir_jax.data.track import load_track
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.inference import viewer as viewer_lib
from pir_jax.media import blending, plots
from pir_jax.metrics import lpips, ssim
from pir_jax.runs import frozen_networks
from pir_jax.runtime import checkpoint
from pir_jax.stages import conditioning
from pir_jax.types import Cameras, FaceSpace, InputError

MAX_FRAMES = 200  # Of a long tail: bounds memory and time.
MAX_TRAINING = 40  # Training frames in the last row.
BATCH = 8
TRUTH = "ground truth, as JPEG"
MEAN, NEAREST = "mean of the training frames", "nearest training frame"
RAW, OURS = "raw image, enlarged", "ours"
TRAINED = "ours, training frames"
STILL = 1e-3  # Deviation of a camera's number below which it is noise.
LEGEND = """
Inside the head (true pixels off it): PSNR, SSIM, LPIPS (AlexNet); mouth: PSNR
of that region. Each is the mean of the frames' own numbers, PSNR that of their
dB. The last row: {} frames of the training part."""

Path = str | pathlib.Path
Pictures = UInt8[np.ndarray, "t h h 3"]


class Frames(NamedTuple):
  """Frames at the network's own size; regions go from 0 to 1."""

  image: Pictures
  head: Float[np.ndarray, "t h h 1"]
  mouth: Float[np.ndarray, "t h h 1"]
  cameras: Cameras
  expression: Float[np.ndarray, "t e"]


class Rendered(NamedTuple):
  """Face images, raw images enlarged to their size, and depths."""

  image: Pictures
  raw: Pictures
  depth: Float[np.ndarray, "t r r"]
  weight_sum: Float[np.ndarray, "t r r"]


class Measured(NamedTuple):
  """One row: means over its frames of each frame's number."""

  psnr_head: float
  ssim_head: float
  lpips_head: float
  psnr_mouth: float


def evenly(num: int, most: int) -> Int[np.ndarray, "_"]:
  """At most `most` of `num` places, evenly spaced, both ends included."""
  return np.linspace(0, num - 1, min(num, most)).round().astype(int)


def take(source: sources.FrameSource, items: Int[np.ndarray, "t"]) -> Frames:
  """Some items of a source."""
  names = ("image", "head", "mouth", "pose", "intrinsics", "expression")
  given = []
  for i in items:
    item = source[int(i)]
    item["image"] = blending.to_bytes(item["image"])
    given.append([item[name] for name in names])
  *regions, pose, k, expression = map(np.stack, zip(*given, strict=True))
  return Frames(*regions, Cameras(pose, k), expression)


def baselines(
  given: Frames, data: Path, space: FaceSpace
) -> dict[str, Pictures]:
  """What the clip's training frames alone say of other frames.

  The mean is that of at most MAX_FRAMES. The nearest, among all, has the least
  mean square difference of standardised expressions plus that of cameras.
  """
  size = given.image.shape[1]
  train = sources.FrameSource(data, resolution=size, cache_bytes=0)
  mean = take(train, evenly(len(train), MAX_FRAMES)).image.mean(0)
  # The track has the numbers of all without decoding a picture.
  track, stored = load_track(data)
  start, stop = sources.frame_range(manifest.load_manifest(data), "train")
  index = stored[(stored >= start) & (stored < stop)]
  cameras = Cameras(track.pose[index], track.intrinsics[index])
  scale = np.maximum(np.std(cameras_lib.to_vector(cameras), 0), STILL)

  def numbers(expression, cameras):
    vectors = np.asarray(cameras_lib.to_vector(cameras)) / scale
    parts = (np.asarray(space.standardise(expression)), vectors)
    return np.concatenate([x / x.shape[1] ** 0.5 for x in parts], 1)

  known = numbers(track.expression[index], cameras)
  wanted = numbers(given.expression, given.cameras)
  chosen = np.array([((known - x) ** 2).sum(1).argmin() for x in wanted])
  near = take(train, chosen).image
  return {MEAN: np.full_like(near, mean + 0.5), NEAREST: near}


def renderer(
  generator: nnx.Module, space: FaceSpace, identity: Float[np.ndarray, "i"]
) -> Callable[[Frames], Rendered]:
  """Shows a person through each frame's own camera, its own expression on."""
  graphdef, numbers = nnx.split(generator)
  same = jax.device_put(np.repeat(np.float32(identity)[None], BATCH, 0))

  # The numbers are an argument: as constants they would be compiled in.
  @jax.jit
  def render(numbers, expression, cameras):
    given = conditioning.inputs(space, same, expression, cameras)
    out = nnx.merge(graphdef, numbers)(*given)
    raw = jax.image.resize(out.raw_image, out.image.shape, "bilinear")
    return out.image, raw, out.depth, out.weight_sum

  def show(given: Frames) -> Rendered:
    num, seen = len(given.image), []
    for start in range(0, num, BATCH):
      # One batch size is one compiled program; the filling is thrown away.
      at = np.minimum(start + np.arange(BATCH), num - 1)
      cameras = Cameras(*(x[at] for x in given.cameras))
      found = jax.device_get(render(numbers, given.expression[at], cameras))
      seen.append(
        (blending.to_bytes(found[0]), blending.to_bytes(found[1]), *found[2:])
      )
    return Rendered(*(np.concatenate(x)[:num] for x in zip(*seen, strict=True)))

  return show


def decibels(
  shown: Pictures, truth: Pictures, region: Float[np.ndarray, "t h h 1"]
) -> Float[np.ndarray, "t"]:
  """PSNR of each frame, pixels weighed by a region; NaN where it is empty."""
  error = (region * (shown / 255 - truth / 255) ** 2).sum((1, 2, 3))
  with np.errstate(divide="ignore", invalid="ignore"):
    return -10 * np.log10(error / (3 * region.sum((1, 2, 3))))


def measure(
  shown: Pictures,
  given: Frames,
  distance: Callable[..., Float[np.ndarray, "_"]],
  box: tuple[slice, slice],
) -> Measured:
  """One row: pictures in the frames' place, looked at in the head alone.

  LPIPS (`distance`) is that of a box of rows and columns, the same for all.
  """
  values = []
  for start in range(0, len(shown), BATCH):
    part = slice(start, start + BATCH)
    truth, head = given.image[part], given.head[part]
    # True pixels off the head in both: windows of SSIM and LPIPS reach there.
    frames = truth + head * (shown[part] - truth.astype(np.float32))
    frames = (frames + 0.5).astype(np.uint8)
    like = ssim.ssim(frames, truth, head)
    near = distance(frames[:, *box], truth[:, *box])
    mouth = decibels(shown[part], truth, head * given.mouth[part])
    values.append((decibels(shown[part], truth, head), like, near, mouth))
  known = (np.concatenate(x) for x in zip(*values, strict=True))
  known = (x[~np.isnan(x)] for x in known)  # A frame without the region.
  return Measured(*(float(x.mean()) if len(x) else np.nan for x in known))


def as_jpeg(picture: UInt8[np.ndarray, "h h 3"]) -> UInt8[np.ndarray, "h h 3"]:
  """A picture after JPEG of quality 95."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, format="jpeg", quality=95)
  return np.asarray(Image.open(buffer))


def as_text(table: dict[str, Measured], title: str) -> str:
  """The table for a person."""
  lines = [title, " " * 34 + "PSNR    SSIM   LPIPS   mouth"]
  for name, row in table.items():
    cells = zip(row, (2, 3, 3, 2), strict=True)
    lines.append(f"{name:30}" + "".join(f"{v:8.{n}f}" for v, n in cells))
  return "\n".join(lines)


def report(model: Path, data: Path, output: Path) -> str:
  """Writes the report on the tri-plane stage alone; returns its table.

  Args:
    model: folder with the run `triplane`, or that run itself.
    data: a prepared clip, of a person in the training data or not.
    output: folder for portrait.txt, .json and .png.

  Raises:
    InputError: the model or the data cannot be used.
  """
  model, output = pathlib.Path(model), pathlib.Path(output)
  model = model / "triplane" if (model / "triplane").is_dir() else model
  made = manifest.load_manifest(data)
  viewer = viewer_lib.Viewer.open(model)
  space, size = viewer.space, viewer.generator.config.resolution
  if not space.is_like(manifest.load_space(data)):
    raise InputError(f"{data} and {model} are of different face models.")
  show = renderer(viewer.generator, space, np.float32(made.identity))
  parts = []
  for split, most in (("held_out", MAX_FRAMES), ("train", MAX_TRAINING)):
    source = sources.FrameSource(data, resolution=size, split=split)
    parts.append(take(source, evenly(len(source), most)))
  given, known = parts
  ours = show(given)
  rows = {TRUTH: np.stack([as_jpeg(x) for x in given.image])}
  rows |= baselines(given, data, space) | {RAW: ours.raw, OURS: ours.image}
  distance = lpips.Distance(frozen_networks.lpips_network("alex"))
  box = lpips.bounding_box(np.concatenate([given.head, known.head])[..., 0])
  table = {n: measure(x, given, distance, box) for n, x in rows.items()}
  table[TRAINED] = measure(show(known).image, known, distance, box)
  people = checkpoint.read_record(model)["people"]
  strange = made.identity not in [person["identity"] for person in people]
  title = f"{made.source}{', not in the training data' * strange}: "
  title += f"{len(given.image)} held-out frames at {size} px"
  text = as_text(table, title) + "\n" + LEGEND.format(len(known.image))
  output.mkdir(parents=True, exist_ok=True)
  (output / "portrait.txt").write_text(text + "\n")
  plain = {name: row._asdict() for name, row in table.items()}
  (output / "portrait.json").write_text(json.dumps(plain, indent=2) + "\n")
  at = evenly(len(given.image), 8)
  image, raw, *matter = (x[at] for x in ours)
  normals = np.zeros((*matter[0].shape, 3))  # Not shown.
  seen = viewer_lib.Pictures(image / 127.5 - 1, *matter, normals)
  rows = {"real": given.image[at], OURS: image, RAW: raw}
  rows["depth, near is bright"] = viewer_lib.to_pictures(seen)["depth"]
  plots.contact_sheet(rows, num_columns=8).save(output / "portrait.png")
  return text
