"""An imperceptible mark in inpainted pixels that survives re-encoding.

A spread-spectrum mark (Cox et al., 1997): a fixed pseudo-random tile, repeated
over the frame, is added to brightness and another one to blueness, where pixels
were inpainted. It stays in place while the picture under it moves: over many
frames the mark adds up. Its waves are long enough for an encoder to keep them.
The detector knows the tiles, but needs no original, and any cut of the
picture only shifts them.

h and w sides of a frame, r rows and c columns of a part of it, s side of a
tile, k windows.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int16, UInt8
from scipy import fft, ndimage

NAME = "spread spectrum, version 1"
SIDE = 128  # Of a tile, in pixels of the frame.
_SEEDS = (20231, 20232)  # Of the tiles: another tile is another mark.
# Waves a side of the tile, from and to: of brightness and of blueness, which
# encoders keep at half the resolution.
_BANDS = ((8, 18), (4, 10))
# Root mean squares in grey levels, on a small face; from so many pixels on, a
# larger one needs less.
_STRENGTHS = (1.7, 2.6)
_SMALL, _LEAST = 250, 0.5
# Of 129 pixels all marks were detected, of 84 none; there, where a face is
# sharp for its size, it also costs ten times as much.
SMALLEST = 120

_LUMA = np.float32([0.2126, 0.7152, 0.0722])  # ITU-R BT.709.
_BLUE = np.float32([0, -0.1873, 1.8556])  # What a step of Cb adds to RGB.

# Of the detector.
THRESHOLD = 7.0  # See RESULTS: of what chance does.
# What a score gains where nothing was cut off, as one shift is to be looked at
# and not all of them.
_IN_PLACE = 1.2
_STEP, _MOST = 2, 300  # Every second frame; so many in all.
_NEAR, _AROUND, _QUIET = 9, 17, (4.0, 1.5)
_WINDOWS = (2, 3, 4, 5, 6, 8, 12)  # Sides of windows, in half tiles.
_PLACES = 8  # Most windows of a size along a side.
# How many times larger the picture was when it was marked, up to a side.
_SCALES, _LARGEST = (1, 2), 4096


class Detection(NamedTuple):
  """What the detector sees in a video.

  Attributes:
    score: how far the mark stands out, in standard deviations of chance.
    num_frames: that were looked at.
  """

  score: float
  num_frames: int

  @property
  def is_marked(self) -> bool:
    """Whether it cannot well be chance."""
    return self.score >= THRESHOLD


@functools.cache
def tile(channel: int, seed: int) -> Float[np.ndarray, "s s"]:
  """Returns the tile of brightness (0) or of blueness (1), of unit power."""
  low, high = _BANDS[channel]
  waves = np.fft.fftfreq(SIDE, 1 / SIDE)
  radius = np.hypot(waves[:, None], waves)
  phases = np.random.default_rng(seed).random((SIDE, SIDE))
  band = (radius >= low) & (radius <= high)
  pattern = np.fft.ifft2(band * np.exp(2j * np.pi * phases)).real
  return (pattern / pattern.std()).astype(np.float32)


@functools.lru_cache(4)
def _wide(
  num_rows: int, num_columns: int, strength: float
) -> Int16[np.ndarray, "r c 3"]:
  """Returns tiles side by side, as they change RGB."""
  luma, blue = (
    strength * each * tile(channel, seed)[..., None]
    for channel, (each, seed) in enumerate(zip(_STRENGTHS, _SEEDS, strict=True))
  )
  whole = np.rint(luma + blue * _BLUE).astype(np.int16)
  return np.tile(whole, (num_rows, num_columns, 1))


def pattern(
  rows: slice, columns: slice, side: float | np.floating
) -> Int16[np.ndarray, "r c 3"]:
  """Returns what is added to a part of a frame, in grey levels of RGB.

  Args:
    rows: of the frame.
    columns: likewise.
    side: of the square about the mask, in pixels: what is to be detected is
      the sum over it. A small one gets nothing, see `SMALLEST`.
  """
  if side < SMALLEST:
    size = (x.stop - x.start for x in (rows, columns))
    return np.zeros((*size, 3), np.int16)
  # In eighths: a face that moves needs no new tiles.
  strength = float(np.clip(np.rint(8 * _SMALL / side) / 8, _LEAST, 1))
  spans = [(x.start % SIDE, x.stop - x.start) for x in (rows, columns)]
  counts = (-(-(first + size) // SIDE) for first, size in spans)
  wide = _wide(*counts, strength)
  return wide[tuple(slice(first, first + size) for first, size in spans)]


def detect(frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Detection:
  """Looks for the mark in the frames of a video, from its beginning.

  Raises:
    ValueError: there is no frame.
  """
  planes, count = accumulate(frames)
  return Detection(score(planes), count)


def accumulate(
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
) -> tuple[list[Float[np.ndarray, "_ _"]], int]:
  """Returns the mean of both whitened planes, and of how many frames.

  Brightness as large as the frame, blueness half as large.
  """
  sums, count = None, 0
  for frame in _some(frames):
    planes = [_whiten(*x) for x in zip(_planes(frame), _QUIET, strict=True)]
    if sums is None:
      sums = planes
    elif sums[0].shape != planes[0].shape:
      break  # Another resolution from here on.
    else:
      for total, plane in zip(sums, planes, strict=True):
        total += plane
    count += 1
  if sums is None:
    raise ValueError("a video without a frame cannot be looked at")
  return [total / count for total in sums], count


def _some(frames: Iterable) -> Iterator:
  for number, frame in enumerate(frames):
    if number == _STEP * _MOST:
      return
    if number % _STEP == 0:
      yield frame


def _planes(frame) -> Iterator[Float[np.ndarray, "_ _"]]:
  yield frame @ _LUMA
  height, width = (max(1, side // 2) for side in frame.shape[:2])
  even = frame[: 2 * height, : 2 * width].astype(np.float32)
  half = sum(even[i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
  yield (half[..., 2] - half @ _LUMA) / _BLUE[2]


def _whiten(
  plane: Float[np.ndarray, "_ _"], quiet: float
) -> Float[np.ndarray, "_ _"]:
  """Takes the picture away, as far as it goes: its large forms and its edges.

  Args:
    plane: of the picture.
    quiet: grey levels below which nothing is amplified.
  """
  high = plane - ndimage.uniform_filter(plane, _NEAR)
  power = ndimage.uniform_filter(high * high, _AROUND)
  return high / np.sqrt(power + quiet**2)


def score(
  planes: list[Float[np.ndarray, "_ _"]], seeds: tuple[int, int] = _SEEDS
) -> float:
  """Returns how far the tiles stand out, in standard deviations of chance.

  Whatever part of the picture is marked: windows of many sizes and places are
  tried, and the most striking one counts.

  Args:
    planes: from `accumulate`.
    seeds: of the tiles; others than the mark's show what chance does.
  """
  best = 0.0
  side = max(planes[0].shape)
  for scale in (x for x in _SCALES if x == 1 or x * side <= _LARGEST):
    for folded in zip(
      *(
        _folded(plane, scale * (1 + i), _WINDOWS[scale - 1 :: scale])
        for i, plane in enumerate(planes)
      ),
      strict=True,
    ):
      total = sum(
        _correlation(fold, tile(i, seed))
        for i, (fold, seed) in enumerate(zip(folded, seeds, strict=True))
      ) / np.sqrt(len(seeds))
      best = max(best, float(total.max()))
      if scale == 1:
        best = max(best, float(total[:, 0, 0].max()) + _IN_PLACE)
  return best


def _folded(
  plane: Float[np.ndarray, "_ _"], scale: int, sizes: tuple[int, ...]
) -> Iterator[Float[np.ndarray, "k s s"]]:
  """Yields windows of each size, folded to a tile: what repeats adds up."""
  plane = plane.repeat(scale, 0).repeat(scale, 1)
  half = SIDE // 2
  counts = [-(-side // half) for side in plane.shape]
  padded = np.zeros([count * half for count in counts], np.float32)
  padded[: plane.shape[0], : plane.shape[1]] = plane
  blocks = padded.reshape(counts[0], half, counts[1], half).swapaxes(1, 2)
  # Sums over blocks above and left of each, apart for each quarter of a tile.
  sums = np.zeros((2, 2, counts[0] + 1, counts[1] + 1, half, half), np.float32)
  for i in (0, 1):
    for j in (0, 1):
      sums[i, j, 1 + i :: 2, 1 + j :: 2] = blocks[i::2, j::2]
  for axis in (2, 3):
    sums.cumsum(axis, out=sums)
  for size in sorted({min(size, max(counts)) for size in sizes}):
    height, width = (min(size, count) for count in counts)
    firsts, lefts = (
      np.arange(0, count - extent + 1, -(-count // _PLACES))
      for count, extent in zip(counts, (height, width), strict=True)
    )
    top, left = firsts[:, None], lefts[None]
    inside = (
      sums[:, :, top + height, left + width]
      - sums[:, :, top, left + width]
      - sums[:, :, top + height, left]
      + sums[:, :, top, left]
    )
    yield inside.transpose(2, 3, 0, 4, 1, 5).reshape(-1, SIDE, SIDE)


def _correlation(
  folded: Float[np.ndarray, "k s s"], tile: Float[np.ndarray, "s s"]
) -> Float[np.ndarray, "k s s"]:
  """Correlates with a tile at all shifts, in standard deviations of them."""
  wave = fft.rfft2(tile)
  band = np.abs(wave) > 1e-3 * np.abs(wave).max()
  spectrum = fft.rfft2(folded) * band
  # Halfway to phases alone: strong waves are the picture's.
  spectrum /= np.sqrt(np.abs(spectrum) + 1e-9)
  values = fft.irfft2(spectrum * wave.conj(), s=tile.shape)
  spread = values.std((1, 2), keepdims=True)
  return values / np.maximum(spread, 1e-12)
