"""Whether the lips can be read from masked frames: `metrics.leak` on a clip.

t frames, r side of the network's windows, s side of what the probe sees.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pir_jax.data import sources
from pir_jax.data.dataset import Clip
from pir_jax.metrics import leak, lips

SIDE = 64  # Pixels of what the probe sees, at least, where there are as many.
MAX_FRAMES = 1500  # Of a long clip, evenly spaced: bounds memory and time.
_FEWEST = 60  # Training frames, below which a probe learns nothing.
MASKED = "frames as masked"
OUTLINE = "outline of the mask alone"
OPEN = "control: whole frames"

_LEGEND = """\
r: correlation of the lips' opening with what a ridge regression reads off the
pictures. chance: the same trained on openings shifted in time, mean and 95th
percentile; above that it reads. tail: trained on the training part, read on the
{} held-out frames{}. folds: {} parts of the clip, each
read by what was trained on the others."""


class Readings(NamedTuple):
  """Of the held-out tail, and of contiguous folds over the whole clip."""

  tail: leak.Reading
  folds: leak.Reading


def read(clip: Clip, resolution: int) -> dict[str, Readings]:
  """Measures what a probe reads off a prepared clip's frames.

  Args:
    clip: whose frames are read.
    resolution: of the inpainting network's windows; the probe
      sees these, masked as they are for it, shrunk by a whole number.

  Returns:
    Nothing for a clip of less than about three seconds.
  """
  shown, opening, num_train = _shown(clip, resolution)
  if num_train < _FEWEST or len(opening) - num_train < 2:
    return {}
  return {
    name: Readings(leak.tail(x, opening, num_train), leak.folds(x, opening))
    for name, x in shown.items()
  }


def as_text(readings: dict[str, Readings]) -> str:
  """Formats the readings for a person."""
  if not readings:
    return "lips read off the frames: too few frames for a probe"
  # Where not even whole frames are read, figures of the mask say nothing.
  unread = {
    part
    for part in Readings._fields
    if OPEN in readings and not getattr(readings[OPEN], part).leaks
  }
  readable = [part for part in Readings._fields if part not in unread]
  heads = "".join(f"{x:>7}" for x in ("r", "R2", "chance", "95 %")) + " " * 8
  lines = [
    f"{'lips read off':28}"
    + "".join(f"{part:^36}" for part in readable).rstrip(),
    " " * 28 + (heads * len(readable)).rstrip(),
  ]
  for name, pair in readings.items():
    cells = "".join(
      "".join(f"{v:7.2f}" for v in reading[:4])
      + f"{'reads' if reading.leaks else 'chance':>8}"
      for reading in (getattr(pair, part) for part in readable)
    )
    lines.append(f"{name:28}{cells}")
  sentences = [
    f"lips read off, {part}: not even whole frames are read, as in a short or "
    "small clip: nothing can be said of the mask"
    for part in Readings._fields
    if part in unread
  ]
  if not readable:
    return "\n".join(sentences)
  lines += sentences
  few = next(iter(readings.values())).tail.num_frames
  note = ", few for a correlation" if few < 100 else ""
  return "\n".join([*lines, "", _LEGEND.format(few, note, leak.NUM_FOLDS)])


def _shown(clip: Clip, resolution: int):
  """Returns the probe's inputs, openings and number of training frames."""
  track = clip.track
  # In units of the window, in which a face keeps its size.
  opening = lips.opening(track.landmarks)
  measured = track.present & ~track.interpolated & np.isfinite(opening)
  known = [
    sources.FrameSource(
      clip, resolution=resolution, split=x, around_mask=True, cache_bytes=0
    )
    for x in ("train", "held_out")
  ]
  rows = [(part, i) for part, x in enumerate(known) for i in range(len(x))]
  most = min(len(rows), MAX_FRAMES)
  chosen = np.linspace(0, len(rows) - 1, most).round().astype(int)
  seen = {MASKED: [], OUTLINE: [], OPEN: []}
  index, num_train = [], 0
  for part, i in (rows[c] for c in chosen):
    item = known[part][i]
    if not measured[item["index"]]:
      continue
    mask = item["mask"] > 0
    # Masked as for the network and then shrunk: no more than it is shown.
    seen[MASKED].append(_shrink(np.where(mask, 0, item["image"])))
    seen[OUTLINE].append(_shrink(mask.astype(np.float32)))
    seen[OPEN].append(_shrink(item["image"]))
    index.append(int(item["index"]))
    num_train += part == 0
  shown = {name: np.stack(pictures) for name, pictures in seen.items()}
  return shown, opening[index], num_train


def _shrink(
  picture: Float[np.ndarray, "r r c"],
) -> Float[np.ndarray, "s s c"]:
  """Averages whole blocks."""
  side, _, channels = picture.shape
  step = max(1, side // SIDE)
  while side % step:
    step -= 1
  blocks = picture.reshape(side // step, step, side // step, step, channels)
  return blocks.mean((1, 3), dtype=np.float32)
