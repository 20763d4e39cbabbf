"""Held-out frames painted anew and compared with the truth.

t frames, h side at which frames are compared, r side of the network's windows,
e expression coefficients.
"""

import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pir_jax import assets
from pir_jax.convert import lpips as lpips_weights
from pir_jax.data import manifest, media, sources, store, timing, writer
from pir_jax.data.track import load_track
from pir_jax.face import detector, masks, morphable
from pir_jax.metrics import landmarks, lpips, psnr, ssim
from pir_jax.reenactor import Reenactor, to_bytes
from pir_jax.types import FRAME_RATE, Cameras

SIZE = 512  # Side of the windows compared.
MAX_FRAMES = 200  # Of a long tail: bounds memory to a few GB.
TRUTH = "ground truth, re-encoded"
FROZEN = "frozen mouth"
FITTED = "ours, fitted expression"
HEARD = "ours, expression from audio"


class HeldOut(NamedTuple):
  """The held-out frames of a clip.

  Attributes:
    truth: windows at SIZE.
    mask: what is painted, at SIZE.
    image: windows at the network's size, in [-1, 1].
    cover: the mask at the network's size.
    cameras: of the windows.
    fitted: expressions of the fit.
    heard: expressions predicted from the clip's own sound; None without sound.
    boxes: around the true landmarks, in pixels of `truth`.
  """

  truth: UInt8[np.ndarray, "t h h 3"]
  mask: Float[np.ndarray, "t h h 1"]
  image: Float[np.ndarray, "t r r 3"]
  cover: Float[np.ndarray, "t r r 1"]
  cameras: Cameras
  fitted: Float[np.ndarray, "t e"]
  heard: Float[np.ndarray, "t e"] | None
  boxes: Float[np.ndarray, "t 4"]


def held_out(data: pathlib.Path, actor: Reenactor) -> HeldOut:
  """Reads the held-out frames of a prepared clip."""
  large = _stack(sources.FrameSource(data, resolution=SIZE, split="held_out"))
  small = _stack(
    sources.FrameSource(data, resolution=actor.resolution, split="held_out")
  )
  track, _ = load_track(data)
  points = track.landmarks[large["index"]] * SIZE
  return HeldOut(
    truth=to_bytes(large["image"]),
    mask=large["mask"],
    image=small["image"],
    cover=small["mask"],
    cameras=Cameras(small["pose"], small["intrinsics"]),
    fitted=small["expression"],
    heard=_heard(data, actor, track.times, large["index"]),
    boxes=np.concatenate([points.min(1), points.max(1)], axis=1),
  )


def rows(
  given: HeldOut, actor: Reenactor
) -> dict[str, UInt8[np.ndarray, "t h h 3"]]:
  """Every row of the table: its windows at SIZE."""
  frozen = np.broadcast_to(actor.space.expression_mean, given.fitted.shape)
  shown = {FROZEN: frozen, FITTED: given.fitted}
  if given.heard is not None:
    shown[HEARD] = given.heard
  opacity = masks.feather(given.cover[..., 0] > 0)
  result = {TRUTH: _reencode(given.truth)}
  for name, expression in shown.items():
    painted = actor.paint(
      given.image, given.cover, given.cameras, np.float32(expression)
    )
    result[name] = np.stack(
      [
        _blend(*frame)
        for frame in zip(given.truth, painted, opacity, strict=True)
      ]
    )
  return result


def measure(
  given: HeldOut, frames: dict[str, UInt8[np.ndarray, "t h h 3"]]
) -> dict[str, dict[str, float]]:
  """Row -> metric -> mean over the frames."""
  distance = lpips.Distance(lpips_weights.load(assets.fetch("lpips"), "alex"))
  tracker = detector.Tracker()

  def mouths(images):
    points = [
      tracker.landmarks(image, box)[0]
      for image, box in zip(images, given.boxes, strict=True)
    ]
    return np.stack(points)[:, morphable.LIPS, :2]

  truth = mouths(given.truth)
  table = {}
  for name, images in frames.items():
    table[name] = {
      "psnr_mask": _mean(psnr.psnr(images, given.truth, given.mask)),
      "ssim_mask": _mean(ssim.ssim(images, given.truth, given.mask)),
      "lpips_mask": _mean(distance(images, given.truth, given.mask)),
      "psnr": _mean(psnr.psnr(images, given.truth)),
      "ssim": _mean(ssim.ssim(images, given.truth)),
      "lpips": _mean(distance(images, given.truth)),
      "mouth_distance": landmarks.mouth_distance(mouths(images), truth),
    }
  return table


def as_text(
  table: dict[str, dict[str, float]], num_frames: int, source: str
) -> str:
  """The table for a person."""
  head = ("", "PSNR", "SSIM", "LPIPS", "PSNR", "SSIM", "LPIPS", "mouth")
  lines = [
    f"{source}: {num_frames} held-out frames, windows at {SIZE} px; LPIPS: "
    "AlexNet; mouth: LMD in px, 40 lip points of MediaPipe's face mesh",
    f"{'':30}{'inside the mask':^24}{'whole window':^24}",
    f"{head[0]:30}" + "".join(f"{name:>8}" for name in head[1:]),
  ]
  places = (2, 3, 3, 2, 3, 3, 2)
  for name, values in table.items():
    cells = zip(values.values(), places, strict=True)
    lines.append(f"{name:30}" + "".join(f"{v:8.{n}f}" for v, n in cells))
  return "\n".join(lines)


def _heard(data, actor, times, index):
  """Expressions predicted from the clip's own sound at some frames' times."""
  made = manifest.load_manifest(data)
  if not made.num_clips:
    return None
  ticks = timing.tick_times(times)
  heard = np.broadcast_to(
    actor.space.expression_mean, (len(ticks), actor.space.expression_size)
  ).copy()
  for record in store.open_records(data / store.CLIPS):
    clip = store.decode_clip(record)
    spoken = actor.speak(clip.waveform)
    heard[clip.start : clip.start + len(clip.valid)] = spoken[: len(clip.valid)]
  everywhere = np.ones(len(ticks), bool)
  return timing.interpolate(ticks, heard, everywhere, times[index])[0]


def _stack(source) -> dict[str, np.ndarray]:
  """Items of a source, at most MAX_FRAMES of them, evenly spaced."""
  num = min(len(source), MAX_FRAMES)
  chosen = np.linspace(0, len(source) - 1, num).round().astype(int)
  names = ("image", "mask", "pose", "intrinsics", "expression", "index")
  items = [{n: source[int(i)][n] for n in names} for i in chosen]
  return {name: np.stack([item[name] for item in items]) for name in names}


def _blend(truth, painted, opacity):
  """The painted window over the true one, at the true one's size."""
  size = truth.shape[1::-1]
  large = Image.fromarray(to_bytes(painted)).resize(
    size, Image.Resampling.BICUBIC
  )
  cover = Image.fromarray((opacity * 255 + 0.5).astype(np.uint8)).resize(
    size, Image.Resampling.BILINEAR
  )
  return np.asarray(Image.composite(large, Image.fromarray(truth), cover))


def _reencode(frames: UInt8[np.ndarray, "t h w 3"]) -> np.ndarray:
  """The frames after the codec that `reenact` writes with."""
  size = (frames.shape[2], frames.shape[1])
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "truth.mp4"
    with writer.VideoWriter(path, size, Fraction(FRAME_RATE)) as sink:
      for frame in frames:
        sink.write(frame)
    return np.stack([image for _, image in media.read_frames(path)])


def _mean(values: Float[np.ndarray, "t"]) -> float:
  return float(np.nanmean(values))
