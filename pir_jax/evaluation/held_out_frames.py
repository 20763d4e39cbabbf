"""The held-out frames of a clip, and what could stand in their place.

Every row is pasted into the target frame in the same way, so that rows differ
in the face alone.
t frames, h side of the windows compared, r side of the network's windows, e
expression coefficients.
"""

import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image

from pir_jax.data import sources
from pir_jax.data.dataset import Clip
from pir_jax.inference.person import Person
from pir_jax.media import blending, video_reader, video_writer
from pir_jax.runs import audio_expressions
from pir_jax.types import FRAME_RATE, Cameras

SIZE = 512  # Side of the windows compared.
MAX_FRAMES = 200  # Of a long tail: bounds memory to a few GB.
_NUM_RUNS = 4  # In which they are taken: jitter needs frames in a row.

TARGET = "ground truth, re-encoded"
PASTED = "ground truth, pasted back"
OTHER_MOMENT = "ground truth, other moment"
FROZEN = "frozen mouth"
STAGE2_FITTED = "stage 2 alone, fitted"
STAGE2_AUDIO = "stage 2 alone, audio-driven"
FITTED = "ours, fitted expression"
AUDIO_DRIVEN = "ours, audio-driven"

Pictures = UInt8[np.ndarray, "t h h 3"]


class HeldOut(NamedTuple):
  """The held-out frames of a clip.

  Attributes:
    index: of each in the clip.
    target: windows at SIZE.
    mask: what is inpainted, at SIZE.
    mouth: the lips over the whole range of their motion, at SIZE.
    square: around the mask, which the network is shown: centre and side in
      pixels of `target`.
    image: what it is shown, in [-1, 1].
    cover: the mask at the network's size.
    head: the head with its hair, at the network's size.
    cameras: of what it is shown.
    window_cameras: of the windows.
    fitted: expressions of the fit.
    predicted: expressions predicted from the clip's own sound; None without.
    boxes: around the landmarks, in pixels of `target`.
  """

  index: Int[np.ndarray, "t"]
  target: Pictures
  mask: Float[np.ndarray, "t h h 1"]
  mouth: Float[np.ndarray, "t h h 1"]
  square: Float[np.ndarray, "t 3"]
  image: Float[np.ndarray, "t r r 3"]
  cover: Float[np.ndarray, "t r r 1"]
  head: Float[np.ndarray, "t r r 1"]
  cameras: Cameras
  window_cameras: Cameras
  fitted: Float[np.ndarray, "t e"]
  predicted: Float[np.ndarray, "t e"] | None
  boxes: Float[np.ndarray, "t 4"]


def read_held_out(clip: Clip, person: Person) -> HeldOut:
  """Reads the held-out frames of a prepared clip."""
  large = _stack(sources.FrameSource(clip, resolution=SIZE, split="held_out"))
  small = _stack(
    sources.FrameSource(
      clip, resolution=person.resolution, split="held_out", around_mask=True
    )
  )
  points = clip.track.landmarks[large["index"]] * SIZE
  return HeldOut(
    index=large["index"],
    target=blending.to_bytes(large["image"]),
    mask=large["mask"],
    mouth=large["mouth"],
    square=np.float32(clip.track.mask_window[large["index"]] * SIZE),
    image=small["image"],
    cover=small["mask"],
    head=small["head"],
    cameras=Cameras(small["pose"], small["intrinsics"]),
    window_cameras=Cameras(large["pose"], large["intrinsics"]),
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
    result[name] = pasted(
      held_out.target, images, held_out.cover, held_out.square
    )
  return result


def other_moment(values: Shaped[np.ndarray, "t *n"]) -> np.ndarray:
  """Moves values by a third of the frames, circularly."""
  return np.roll(values, len(values) // 3, axis=0)


def pasted(
  target: Pictures,
  faces: Float[np.ndarray, "t r r 3"],
  cover: Float[np.ndarray, "t r r 1"],
  square: Float[np.ndarray, "t 3"],
) -> Pictures:
  """Pastes squares of windows into the target's as `reenact` into frames."""
  frames = zip(target, square, faces, cover[..., 0] > 0, strict=True)
  return np.stack([blending.paste(*frame) for frame in frames])


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
