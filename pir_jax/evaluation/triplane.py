"""The tri-plane stage measured alone: the implicit face against the frames.

Held-out frames are rendered from their own cameras and fitted expressions and
compared with the targets inside the head. Nothing is inpainted.
t frames, h and r sides of images, e expression and i identity coefficients.
"""

import functools
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

from pir_jax.data import sources
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.inference import viewer as viewer_lib
from pir_jax.media import blending, plots
from pir_jax.metrics import lpips, ssim
from pir_jax.runs import frozen_networks
from pir_jax.runs.run import read_record
from pir_jax.runtime import compiler_options
from pir_jax.stages import conditioning
from pir_jax.types import Cameras, FaceSpace, InputError

MAX_FRAMES = 200  # Of a long tail: bounds memory and time.
MAX_TRAINING = 40  # Training frames in the last row.
BATCH = 8
TARGET = "ground truth, as JPEG"
MEAN, NEAREST = "mean of the training frames", "nearest training frame"
RAW, OURS = "raw image, enlarged", "ours"
TRAINED = "ours, training frames"
STILL = 1e-3  # Std of a camera's value below which it is noise.
LEGEND = """
Inside the head (the target's pixels off it): PSNR, SSIM, LPIPS (AlexNet);
mouth: PSNR of that region. Each is the mean over frames, PSNR that of their dB.
The last row: {} frames of the training part."""

Path = str | pathlib.Path
Pictures = UInt8[np.ndarray, "t h h 3"]


class Frames(NamedTuple):
  """Target frames at the network's own size; regions go from 0 to 1."""

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
  """One row: means over its frames."""

  psnr_head: float
  ssim_head: float
  lpips_head: float
  psnr_mouth: float


def evenly(num: int, most: int) -> Int[np.ndarray, "_"]:
  """Returns at most `most` of `num` places, evenly spaced, with both ends."""
  return np.linspace(0, num - 1, min(num, most)).round().astype(int)


def take(source: sources.FrameSource, items: Int[np.ndarray, "t"]) -> Frames:
  """Reads some items of a source."""
  names = ("image", "head", "mouth", "pose", "intrinsics", "expression")
  rows = []
  for i in items:
    item = source[int(i)]
    item["image"] = blending.to_bytes(item["image"])
    rows.append([item[name] for name in names])
  *regions, pose, k, expression = map(np.stack, zip(*rows, strict=True))
  return Frames(*regions, Cameras(pose, k), expression)


def baselines(
  target: Frames, clip: Clip, space: FaceSpace
) -> dict[str, Pictures]:
  """Predicts frames from the clip's training frames alone.

  The mean is that of at most MAX_FRAMES. The nearest, among all, has the least
  mean square difference of standardised expressions plus that of cameras.
  """
  size = target.image.shape[1]
  train = sources.FrameSource(clip, resolution=size, cache_bytes=0)
  mean = take(train, evenly(len(train), MAX_FRAMES)).image.mean(0)
  # The track describes all of them without decoding a picture.
  track, index = clip.track, clip.frames("train")
  cameras = Cameras(track.pose[index], track.intrinsics[index])
  scale = np.maximum(np.std(cameras_lib.to_vector(cameras), 0), STILL)

  def features(expression, cameras):
    vectors = np.asarray(cameras_lib.to_vector(cameras)) / scale
    parts = (np.asarray(space.standardise(expression)), vectors)
    return np.concatenate([x / x.shape[1] ** 0.5 for x in parts], 1)

  known = features(track.expression[index], cameras)
  wanted = features(target.expression, target.cameras)
  chosen = np.array([((known - x) ** 2).sum(1).argmin() for x in wanted])
  near = take(train, chosen).image
  return {MEAN: np.full_like(near, mean + 0.5), NEAREST: near}


def renderer(
  generator: nnx.Module, space: FaceSpace, identity: Float[np.ndarray, "i"]
) -> Callable[[Frames], Rendered]:
  """Renders a person through each frame's camera, with its expression."""
  graphdef, params = nnx.split(generator)
  same = jax.device_put(np.repeat(np.float32(identity)[None], BATCH, 0))

  # The parameters are an argument: as constants they would be compiled in.
  @functools.partial(jax.jit, compiler_options=compiler_options.usual())
  def render(params, expression, cameras):
    inputs = conditioning.inputs(space, same, expression, cameras)
    out = nnx.merge(graphdef, params)(*inputs)
    raw = jax.image.resize(out.raw_image, out.image.shape, "bilinear")
    return out.image, raw, out.depth, out.weight_sum

  def show(target: Frames) -> Rendered:
    num, batches = len(target.image), []
    for start in range(0, num, BATCH):
      # One batch size is one compiled program; the filling is thrown away.
      at = np.minimum(start + np.arange(BATCH), num - 1)
      cameras = Cameras(*(x[at] for x in target.cameras))
      out = jax.device_get(render(params, target.expression[at], cameras))
      images = (blending.to_bytes(x) for x in out[:2])
      batches.append((*images, *out[2:]))
    parts = zip(*batches, strict=True)
    return Rendered(*(np.concatenate(x)[:num] for x in parts))

  return show


def decibels(
  rendered: Pictures, target: Pictures, region: Float[np.ndarray, "t h h 1"]
) -> Float[np.ndarray, "t"]:
  """Returns each frame's PSNR in a region; NaN where it is empty."""
  error = (region * (rendered / 255 - target / 255) ** 2).sum((1, 2, 3))
  with np.errstate(divide="ignore", invalid="ignore"):
    return -10 * np.log10(error / (3 * region.sum((1, 2, 3))))


def measure(
  rendered: Pictures,
  target: Frames,
  distance: Callable[..., Float[np.ndarray, "_"]],
  box: tuple[slice, slice],
) -> Measured:
  """Measures one row: images against the target frames, in the head alone.

  LPIPS (`distance`) is that of a box of rows and columns, the same for all.
  """
  values = []
  for start in range(0, len(rendered), BATCH):
    part = slice(start, start + BATCH)
    image, head = target.image[part], target.head[part]
    # The target's pixels off the head in both: windows of SSIM and LPIPS
    # extend there.
    frames = image + head * (rendered[part] - image.astype(np.float32))
    frames = (frames + 0.5).astype(np.uint8)
    similar = ssim.ssim(frames, image, head)
    near = distance(frames[:, *box], image[:, *box])
    mouth = decibels(rendered[part], image, head * target.mouth[part])
    psnr = decibels(rendered[part], image, head)
    values.append((psnr, similar, near, mouth))
  known = (np.concatenate(x) for x in zip(*values, strict=True))
  known = (x[~np.isnan(x)] for x in known)  # A frame without the region.
  return Measured(*(float(x.mean()) if len(x) else np.nan for x in known))


def as_jpeg(picture: UInt8[np.ndarray, "h h 3"]) -> UInt8[np.ndarray, "h h 3"]:
  """Encodes and decodes a picture as JPEG of quality 95."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, format="jpeg", quality=95)
  return np.asarray(Image.open(buffer))


def as_text(table: dict[str, Measured], title: str) -> str:
  """Formats the table for a person."""
  lines = [title, " " * 34 + "PSNR    SSIM   LPIPS   mouth"]
  for name, row in table.items():
    cells = zip(row, (2, 3, 3, 2), strict=True)
    lines.append(f"{name:30}" + "".join(f"{v:8.{n}f}" for v, n in cells))
  return "\n".join(lines)


def report(model: Path, clip: Clip, output: Path) -> str:
  """Writes the report on the tri-plane stage alone; returns its table.

  Args:
    model: folder with the run `triplane`, or that run itself.
    clip: a prepared one, of a person in the training data or not.
    output: folder for triplane.txt, .json and .png.

  Raises:
    InputError: the model or the data cannot be used.
  """
  model, output = pathlib.Path(model), pathlib.Path(output)
  model = model / "triplane" if (model / "triplane").is_dir() else model
  viewer = viewer_lib.Viewer.open(model)
  space, size = viewer.space, viewer.generator.config.resolution
  if not space.is_like(Dataset([clip]).space):
    raise InputError(f"{clip.path} and {model} are of different face models.")
  show = renderer(viewer.generator, space, np.float32(clip.manifest.identity))
  parts = []
  for split, most in (("held_out", MAX_FRAMES), ("train", MAX_TRAINING)):
    source = sources.FrameSource(clip, resolution=size, split=split)
    parts.append(take(source, evenly(len(source), most)))
  target, training = parts
  ours = show(target)
  rows = {TARGET: np.stack([as_jpeg(x) for x in target.image])}
  rows |= baselines(target, clip, space) | {RAW: ours.raw, OURS: ours.image}
  network = frozen_networks.lpips_network("alex")
  distance = lpips.Distance(network, compiler_options=compiler_options.usual())
  box = lpips.bounding_box(np.concatenate([target.head, training.head])[..., 0])
  table = {n: measure(x, target, distance, box) for n, x in rows.items()}
  table[TRAINED] = measure(show(training).image, training, distance, box)
  people = read_record(model)["people"]
  strange = clip.manifest.identity not in [
    person["identity"] for person in people
  ]
  title = f"{clip.manifest.source}{', not in the training data' * strange}"
  title += f"{viewer.prior}: "
  title += f"{len(target.image)} held-out frames at {size} px"
  text = as_text(table, title) + "\n" + LEGEND.format(len(training.image))
  output.mkdir(parents=True, exist_ok=True)
  (output / "triplane.txt").write_text(text + "\n")
  plain = {name: row._asdict() for name, row in table.items()}
  (output / "triplane.json").write_text(json.dumps(plain, indent=2) + "\n")
  at = evenly(len(target.image), 8)
  image, raw, *matter = (x[at] for x in ours)
  normals = np.zeros((*matter[0].shape, 3))  # Not shown.
  views = viewer_lib.Pictures(image / 127.5 - 1, *matter, normals)
  rows = {"real": target.image[at], OURS: image, RAW: raw}
  rows["depth, near is bright"] = viewer_lib.to_pictures(views)["depth"]
  plots.contact_sheet(rows, num_columns=8).save(output / "triplane.png")
  return text
