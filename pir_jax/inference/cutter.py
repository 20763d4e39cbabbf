"""Cuts windows out of a video's frames, with what else is made of each once.

Those of a short video stay in memory, and on disk for the next time.

h and w sides of a frame, n of what the network is shown.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from pir_jax.media import blending, crops
from pir_jax.preparation import growing, seen, tracking

_MAX_BYTES = 2**27  # Of frames that may be shown again.
_MASKS = 32  # Frames whose masks are made together.


class Cut(NamedTuple):
  """What is made of a frame, whatever is inpainted there.

  Attributes:
    image: the window; nothing under the mask counts.
    cover: the mask.
    border: of the mask in the frame, for pasting.
  """

  image: UInt8[np.ndarray, "n n 3"]
  cover: Bool[np.ndarray, "n n"]
  border: blending.Border


class Cutter:
  """Cuts the windows of a video as the networks are shown them."""

  def __init__(
    self,
    tracked: tracking.TrackedVideo | growing.Growing,
    side: int,
    resolution: int,
  ):
    """Recalls what is kept of the video.

    Args:
      tracked: the video.
      side: of the windows in which masks are made.
      resolution: of the network.
    """
    self._tracked, self._sides = tracked, (side, resolution)
    self._covers: dict[int, np.ndarray] = {}
    self._cuts = self._recalled() if tracked.whole else {}

  def cut(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> Cut:
    """Returns what is made of a frame, which has a face, by its number."""
    if number not in self._cuts:
      self._add(number, frame)
    result = self._cuts[number]
    if len(self._cuts) * _bytes_of(result) > _MAX_BYTES:
      self._cuts.clear()
      self._covers.clear()
    return result

  def _add(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    if number not in self._covers:
      self._add_covers(number)
    tracked, cover = self._tracked.upto(number), self._covers[number]
    square = tracked.mask_square(number)
    image = crops.crop_window(frame, square, len(cover))
    border = blending.border(frame, square, cover)
    self._cuts[number] = Cut(image, cover, border)
    if self._tracked.whole and len(self._cuts) == tracked.track.present.sum():
      seen.keep_windows(self._place(), _packed(self._cuts))

  def _add_covers(self, number: int) -> None:
    """Adds the masks of the frames about one: together they take half the time.

    A block is the same whichever way the video is played.
    """
    side, resolution = self._sides
    first = number // _MASKS * _MASKS
    tracked = self._tracked.upto(first + _MASKS - 1)
    track = tracked.track
    block = np.arange(first, min(first + _MASKS, len(track.times)))
    block = block[track.present[block]]
    masks = tracked.face_masks(block, side)
    for number, mask in zip(block.tolist(), masks, strict=True):
      window = track.mask_window[number]
      self._covers[number] = crops.covered(mask, resolution, window)

  def _recalled(self) -> dict[int, Cut]:
    """Returns what is kept; nothing where it is not of this video."""
    shape = (self._sides[1],) * 2
    try:
      cuts = _unpacked(seen.recall_windows(self._place()))
    except (KeyError, TypeError, ValueError):
      return {}
    present = np.flatnonzero(self._tracked.track.present)
    if {*cuts} != {*present.tolist()} or any(
      cut.image.shape != (*shape, 3) or cut.cover.shape != shape
      for cut in cuts.values()
    ):
      return {}
    return cuts

  def _place(self) -> pathlib.Path | None:
    return seen.windows_place(self._tracked.upto(0), *self._sides)


def _bytes_of(cut: Cut) -> int:
  return sum(x.nbytes for x in (cut.image, cut.cover, *cut.border))


def _packed(cuts: dict[int, Cut]) -> dict[str, np.ndarray]:
  """Names each array by its frame: a small face's are not of one size."""
  return {
    f"{number}.{name}": array
    for number, cut in cuts.items()
    for name, array in _named(cut).items()
  }


def _named(cut: Cut) -> dict[str, np.ndarray]:
  return {"image": cut.image, "cover": cut.cover} | cut.border._asdict()


def _unpacked(arrays: dict[str, np.ndarray]) -> dict[int, Cut]:
  """Returns the cuts by their frames; see `_packed`."""
  frames: dict[int, dict[str, np.ndarray]] = {}
  for key, array in arrays.items():
    number, name = key.split(".")
    frames.setdefault(int(number), {})[name] = array
  return {
    number: Cut(
      named.pop("image"), named.pop("cover"), blending.Border(**named)
    )
    for number, named in frames.items()
  }
