"""Shot boundaries of a video: hard cuts.

At a cut, unlike in motion, zoom and flashes, no block of the new image matches
near its position in the old one, also two frames later, while images match
within each shot. The measure and its thresholds are ours, and invariant to
light and contrast.

h height, w width of a frame; r rows, c columns of its thumbnail.
"""

import collections
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

ROWS, COLUMNS = 36, 64
# Frames after a cut that must confirm it: a flash is shorter.
LOOKAHEAD = 2
# Images with this correlation in place need no search.
_ALIKE = 0.85
# Similarity: at most 0.56 across cuts we measured, at least 0.92 within their
# shots.
_SIMILAR = 0.7
_BLOCK_ROWS, _BLOCK_COLUMNS = 12, 16
_SEARCH_ROWS, _SEARCH_COLUMNS = 6, 10  # How far a block may have moved.
_NOISE = 3.0  # Grey levels (of 255): a block with less is no evidence.


def small(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "r c 3"]:
  """Returns a frame's thumbnail, in [0, 255]."""
  # Nearest rows and columns first: means over a large frame are slow.
  step = max(
    min(frame.shape[0] // (2 * ROWS), frame.shape[1] // (2 * COLUMNS)), 1
  )
  image = Image.fromarray(np.ascontiguousarray(frame[::step, ::step]))
  image = image.resize((COLUMNS, ROWS), Image.Resampling.BOX)
  return np.asarray(image, np.float32)


def split(
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], bool]]:
  """Yields every frame with whether a shot begins with it; the first does.

  Runs in one pass, with a delay of LOOKAHEAD frames.
  """
  # Thumbnails from two frames before the one in question to the last read.
  before: collections.deque = collections.deque(maxlen=2)
  waiting: collections.deque = collections.deque()
  for frame in frames:
    waiting.append((frame, small(frame)))
    if len(waiting) > LOOKAHEAD:
      yield _decide(before, waiting)
  while waiting:
    yield _decide(before, waiting)


def _decide(before, waiting):
  """Takes the oldest waiting frame and decides whether it begins a shot."""
  begins = not before or _is_cut(list(before), [p for _, p in waiting])
  frame, picture = waiting.popleft()
  if begins:
    before.clear()
  before.append(picture)
  return frame, begins


def _is_cut(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
  """Returns whether a cut lies between the images before and after."""
  last, first = before[-1], after[0]
  if _correlation(last, first) > _ALIKE:
    return False
  if any(similarity(last, picture) > _SIMILAR for picture in after):
    return False
  # In a whip pan images do not match either, but in every frame of it.
  within = [pair for pair in zip(before[:-1], before[1:], strict=True)]
  within += zip(after[:-1], after[1:], strict=True)
  return all(similarity(*pair) > _SIMILAR for pair in within)


def similarity(
  old: Float[np.ndarray, "r c 3"], new: Float[np.ndarray, "r c 3"]
) -> float:
  """Matches the blocks of an image near their position in another.

  Returns:
    The mean correlation of the old image's blocks, each with its best match in
    the new image, weighted by contrast. 1 where both images are blank.
  """
  pad = (
    (_SEARCH_ROWS, _SEARCH_ROWS),
    (_SEARCH_COLUMNS, _SEARCH_COLUMNS),
    (0, 0),
  )
  views = np.lib.stride_tricks.sliding_window_view(
    np.pad(new, pad, mode="edge"), (_BLOCK_ROWS, _BLOCK_COLUMNS), axis=(0, 1)
  )
  total, weights = 0.0, 0.0
  for y in range(0, ROWS, _BLOCK_ROWS):
    for x in range(0, COLUMNS, _BLOCK_COLUMNS):
      block = old[y : y + _BLOCK_ROWS, x : x + _BLOCK_COLUMNS]
      near = views[
        y : y + 2 * _SEARCH_ROWS + 1, x : x + 2 * _SEARCH_COLUMNS + 1
      ]
      block = np.moveaxis(block, -1, 0).ravel()
      near = near.reshape(-1, block.size)
      # One mean for all three colours: a block keeps its hue.
      block = block - block.mean()
      spread = np.hypot(near.std(1), _NOISE)
      weight = float(block.std())
      product = near @ block / (block.size * np.hypot(weight, _NOISE))
      total += weight * float((product / spread).max())
      weights += weight
  if weights < _NOISE * ROWS * COLUMNS / (_BLOCK_ROWS * _BLOCK_COLUMNS):
    return 1.0 if new.std() < _NOISE else 0.0
  return total / weights


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
  a, b = a - a.mean(), b - b.mean()
  spread = np.hypot(a.std(), _NOISE) * np.hypot(b.std(), _NOISE)
  return float((a * b).mean() / spread)
