"""Held-out frames painted anew, and what could stand in their place.

Every row is pasted into the true frame in the same way, so that rows differ in
the painted face alone.
t frames, h side at which frames are compared, r side of the network's windows,
e expression coefficients.
"""

import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image

from pir_jax.data import sources
from pir_jax.data.track import load_track
from pir_jax.inference.reenactor import Reenactor
from pir_jax.media import blending, video_reader, video_writer
from pir_jax.runs import audio_expressions
from pir_jax.types import FRAME_RATE, Cameras

SIZE = 512  # Side of the windows compared.
MAX_FRAMES = 200  # Of a long tail: bounds memory to a few GB.
_NUM_RUNS = 4  # In which they are taken: jitter needs frames in a row.
TRUTH = "ground truth, re-encoded"
PASTED = "true face, pasted back"
ELSEWHEN = "another moment's true face"
FROZEN = "frozen mouth"
PORTRAIT = "stage 2 alone, fitted"
SPOKEN = "stage 2 alone, from audio"
FITTED = "ours, fitted expression"
HEARD = "ours, expression from audio"

Pictures = UInt8[np.ndarray, "t h h 3"]


class HeldOut(NamedTuple):
  """The held-out frames of a clip.

  Attributes:
    index: of each in the clip.
    truth: windows at SIZE.
    mask: what is painted, at SIZE.
    mouth: the lips over the whole range of their motion, at SIZE.
    image: windows at the network's size, in [-1, 1].
    cover: the mask at the network's size.
    head: the head with its hair, at the network's size.
    cameras: of the windows.
    fitted: expressions of the fit.
    heard: expressions predicted from the clip's own sound; None without sound.
    boxes: around the true landmarks, in pixels of `truth`.
  """

  index: Int[np.ndarray, "t"]
  truth: Pictures
  mask: Float[np.ndarray, "t h h 1"]
  mouth: Float[np.ndarray, "t h h 1"]
  image: Float[np.ndarray, "t r r 3"]
  cover: Float[np.ndarray, "t r r 1"]
  head: Float[np.ndarray, "t r r 1"]
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
    index=large["index"],
    truth=blending.to_bytes(large["image"]),
    mask=large["mask"],
    mouth=large["mouth"],
    image=small["image"],
    cover=small["mask"],
    head=small["head"],
    cameras=Cameras(small["pose"], small["intrinsics"]),
    fitted=small["expression"],
    heard=_heard(data, actor, large["index"]),
    boxes=np.concatenate([points.min(1), points.max(1)], axis=1),
  )


def rows(given: HeldOut, actor: Reenactor) -> dict[str, Pictures]:
  """Every row of the table: its windows at SIZE.

  Two show true faces: the frame's own, which is the most that any network of
  this resolution could reach, and that of another moment, a third of the tail
  away: as sharp, and its lips wrong.
  """
  frozen = np.broadcast_to(actor.space.expression_mean, given.fitted.shape)
  painted = {
    PASTED: given.image,
    ELSEWHEN: elsewhen(given.image),
    FROZEN: _paint(given, actor, frozen),
    PORTRAIT: _portrait(given, actor, given.fitted),
    FITTED: _paint(given, actor, given.fitted),
  }
  if given.heard is not None:
    painted[SPOKEN] = _portrait(given, actor, given.heard)
    painted[HEARD] = _paint(given, actor, given.heard)
  result = {TRUTH: _reencode(given.truth)}
  for name, images in painted.items():
    result[name] = pasted(given.truth, images, given.cover)
  return result


def elsewhen(values: Shaped[np.ndarray, "t *n"]) -> np.ndarray:
  """What is a third of the frames away, circularly."""
  return np.roll(values, len(values) // 3, axis=0)


def pasted(
  truth: Pictures,
  painted: Float[np.ndarray, "t r r 3"],
  cover: Float[np.ndarray, "t r r 1"],
) -> Pictures:
  """Painted windows put into the true ones as `reenact` does into frames."""
  side = truth.shape[1]
  window = np.array([side / 2, side / 2, side], np.float32)
  frames = zip(truth, painted, cover[..., 0] > 0, strict=True)
  return np.stack([blending.paste(x, window, y, m) for x, y, m in frames])


def in_runs(num: int, most: int) -> Int[np.ndarray, "_"]:
  """At most `most` of `num` places: a few evenly spaced runs in a row."""
  if num <= most:
    return np.arange(num)
  length = most // _NUM_RUNS
  starts = np.linspace(0, num - length, _NUM_RUNS).round().astype(int)
  return np.unique(starts[:, None] + np.arange(length))


def _portrait(given, actor, expression):
  """Stage 2's own picture, whose background is black, on the true one."""
  image = _resized(
    actor.portray(given.cameras, np.float32(expression)), actor.resolution
  )
  # Colours are matched about the mask: the black would have it too bright.
  return np.where(given.head > 0, image, given.image)


def _paint(given, actor, expression):
  return actor.paint(
    given.image, given.cover, given.cameras, np.float32(expression)
  )


def _heard(data, actor, index):
  """What is heard in the clip's own sound at some frames; else the mean."""
  heard, known = audio_expressions.expressions(data, actor.speak)
  if not known.any():
    return None
  heard = np.where(known[:, None], heard, actor.space.expression_mean)
  return np.float32(heard[index])


def _stack(source) -> dict[str, np.ndarray]:
  """Items of a source, at most MAX_FRAMES of them."""
  names = ("image", *sources.MASKS, "pose", "intrinsics", "expression")
  items = []
  for i in in_runs(len(source), MAX_FRAMES):
    item = source[int(i)]
    items.append({name: item[name] for name in (*names, "index")})
  return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _resized(images, side: int) -> np.ndarray:
  """Images in [-1, 1] at another size."""
  if images.shape[1] == side:
    return images
  small = (Image.fromarray(x) for x in blending.to_bytes(images))
  large = [x.resize((side, side), Image.Resampling.BICUBIC) for x in small]
  return np.stack([np.asarray(x) for x in large]).astype(np.float32) / 127.5 - 1


def _reencode(frames: Pictures) -> Pictures:
  """The frames after the codec that `reenact` writes with."""
  size = (frames.shape[2], frames.shape[1])
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "truth.mp4"
    with video_writer.VideoWriter(path, size, Fraction(FRAME_RATE)) as sink:
      for frame in frames:
        sink.write(frame)
    return np.stack([image for _, image in video_reader.read_frames(path)])
