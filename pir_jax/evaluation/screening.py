"""Measures a reenacted video, or a minute of it, beside its source video.

t frames of what is measured, k landmarks, n audio samples, h side of the window
compared, e expression coefficients.
"""

import itertools
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from pir_jax.evaluation import following as following_lib
from pir_jax.evaluation import reenactment
from pir_jax.face import detector, eyelids, morphable
from pir_jax.media import blending, crops, fill, video_reader
from pir_jax.metrics import flicker, jitter, lids, lips, seam, sharpness
from pir_jax.preparation import tracking
from pir_jax.types import SAMPLE_RATE, InputError

SIZE = 512  # Side of the windows compared.
SILENCE = 35.0  # Decibels under the loudest second.
_QUIET = -60.0  # Decibels that are silence whatever the loudest second is.
_SETTLING = 0.2  # Seconds at each end of silence in which lips may still move.
CLOSED = 5.0  # Percentile of the source's openings that counts as closed.
# The detector's own noise, and about a millimetre: in % of face height.
_TOLERANCE = 0.5
_SMALLEST = 128  # Side of a network in pixels.
_MAX_SEAMS = 200  # Frames in which seams are measured, evenly spaced.
COLUMNS = 8  # Frames to look at.

Path = str | pathlib.Path
Picture = UInt8[np.ndarray, "_ _ 3"]


class Screened(NamedTuple):
  """The figures of a video; NaN where there was nothing to measure.

  Openings are in % of the height of the source's face.

  Attributes:
    num_frames: of the reenacted video.
    num_faceless: of them, made of a source frame without a face.
    outside_window: decibels between the two outside the window.
    outside_mask: the same inside the window, outside mask and feather.
    changed_outside: share of these pixels that differ by more than 8 of 255.
    inside_mask: decibels inside the mask: what was inpainted differs.
    seam_edge, seam_feather, seam_tone, jitter, flicker: ratios to the source's
      own, as `reenactment.Measured` has them.
    sharpness: of what was inpainted, ratio to the source's own.
    blinks: correlation of how far the eyes are open in both.
    following: correlation of how far the lips are open with the opening that
      is predicted of the whole speech.
    lateness: seconds of the pictures after the sound at which it is highest.
    source_opening, output_opening: 5th, 50th and 95th percentile.
    num_silent: frames in silence.
    silent_opening: median over these.
    silent_rank: share of the source's frames more closed than that.
  """

  num_frames: int
  num_faceless: int
  outside_window: float
  outside_mask: float
  changed_outside: float
  inside_mask: float
  seam_edge: float
  seam_feather: float
  seam_tone: float
  jitter: float
  flicker: float
  sharpness: float
  blinks: float
  following: float
  lateness: float
  source_opening: tuple[float, float, float]
  output_opening: tuple[float, float, float]
  num_silent: int
  silent_opening: float
  silent_rank: float

  @property
  def closed(self) -> bool:
    """Whether the mouth is as closed in silence as the source's ever is."""
    return self.silent_opening <= self.source_opening[0] + _TOLERANCE


class Difference:
  """Squared differences of pixels, summed up over frames."""

  def __init__(self):
    self._total = self._count = self._far = 0

  def add(self, a: Picture, b: Picture, where: np.ndarray) -> None:
    """Adds the pixels of one frame."""
    gap = a[where].astype(np.int32) - b[where]
    self._total += int(np.square(gap).sum())
    self._count += len(gap)
    self._far += int((np.abs(gap).max(-1, initial=0) > 8).sum())

  @property
  def decibels(self) -> float:
    """Returns the PSNR over all of them; infinite where nothing differs."""
    if not self._count:
      return float("nan")
    error = self._total / (3 * self._count * 255**2)
    return float(-10 * np.log10(error)) if error else float("inf")

  @property
  def changed(self) -> float:
    """Returns the share of pixels that differ by more than 8 in a colour."""
    return self._far / self._count if self._count else float("nan")


def silent(
  waveform: Float[np.ndarray, "n"], fps: float, count: int
) -> Bool[np.ndarray, "count"]:
  """Finds the frames that lie in silence.

  Their own sound and all within 0.2 s of it is SILENCE under the loudest
  second, or is below -60 dB. Where the sound has ended there is silence.

  Args:
    waveform: at SAMPLE_RATE.
    fps: frames a second.
    count: of frames.
  """
  edges = (np.arange(count + 1) / fps * SAMPLE_RATE).round().astype(int)
  power = np.append(0, np.cumsum(np.square(waveform, dtype=np.float64)))

  def decibels(start, stop):
    start, stop = (np.minimum(x, len(waveform)) for x in (start, stop))
    mean = (power[stop] - power[start]) / np.maximum(stop - start, 1)
    return 10 * np.log10(np.maximum(mean, 1e-12))

  starts = np.arange(0, max(len(waveform) - SAMPLE_RATE, 0) + 1, 160)
  loudest = decibels(starts, starts + SAMPLE_RATE).max()
  level = decibels(edges[:-1], edges[1:])
  near = 2 * round(_SETTLING * fps) + 1
  # Past its end the sound is as silent as at its last frame, not more.
  around = ndimage.maximum_filter1d(level, near, mode="nearest")
  return around < max(loudest - SILENCE, _QUIET)


def screen(
  tracked: tracking.TrackedVideo,
  video: Path,
  waveform: Float[np.ndarray, "n"] | None,
  way: str = "bounce",
  *,
  predicted: Float[np.ndarray, "s e"] | None = None,
  start: float = 0.0,
  seconds: float | None = None,
) -> tuple[Screened, dict[str, UInt8[np.ndarray, "_ h h 3"]]]:
  """Measures a video or a part of it, and picks frames to look at.

  Args:
    tracked: the source.
    video: made of it.
    waveform: the driving speech of the part; None where there is none.
    way: in which the source was filled up to it, one of `fill.WAYS`.
    predicted: expressions that are predicted of that speech.
    start: of the part, seconds.
    seconds: of the part; None is all that follows.

  Raises:
    InputError: it shows nowhere the face of the source.
  """
  rate = float(tracked.video.rate)
  first = int(start * rate)  # Not one too late: the last minute ends there.
  if seconds is None:
    count = sum(1 for _ in video_reader.read_frames(video, start=start))
  else:
    count = round(seconds * rate)
  num_source = len(tracked.track.times)
  index = fill.frame_indices(num_source, first + count, way)[first:]
  pairs = _pairs(tracked, video, index, first)
  meter = _Meter(tracked, index)
  for i, (real, after) in enumerate(pairs):
    meter.add(i, real, after)
  if not meter.edges:
    raise InputError(f"{video} shows nowhere the face of {tracked.path}.")
  following = lateness = float("nan")
  if predicted is not None:
    wanted = following_lib.predicted_opening(tracked, predicted)
    following, lateness = following_lib.follow(meter.opening, rate, wanted)
  return meter.screened(waveform)._replace(
    following=following, lateness=lateness
  ), _pictures(meter.looked_at)


class _Meter:
  """Looks at pairs of frames, of the source and of the video, one by one.

  Attributes:
    edges: gradients across masks, frame by frame.
    looked_at: a few pairs, and the squares to show of them.
  """

  def __init__(self, tracked, index: Int[np.ndarray, "t"]):
    self.edges, self.looked_at = [], []
    self._tracked, self._index = tracked, index
    count = len(index)
    self._beyond, self._around, self._inside = (Difference() for _ in range(3))
    shape = (2, count, detector.NUM_LANDMARKS, 2)
    self._points = np.full(shape, np.nan, np.float32)
    self._lids_open = np.full((2, count), np.nan)
    self._tracker, self._eyes = detector.Tracker(), eyelids.Eyes()
    self._flickers, self._energies, self._last = [], [], None
    self._with_seam = set(_evenly(count, _MAX_SEAMS).tolist())
    self._with_picture = set(_evenly(count, COLUMNS).tolist())

  @property
  def opening(self) -> Float[np.ndarray, "t"]:
    """Returns how far the lips of the video are open, in pixels."""
    return lips.opening(self._points[1])

  def add(self, i: int, real: Picture, after: Picture) -> None:
    """Measures one pair."""
    tracked, number = self._tracked, int(self._index[i])
    if not tracked.track.present[number]:
      return
    box = detector.box_of(tracked.landmarks(number))
    for side, frame in enumerate((real, after)):
      detected = self._tracker.landmarks(frame, box)[0]
      self._points[side, i] = detected[:, :2]
      if np.isfinite(detected).all():
        eyes = self._eyes.refine(frame, detected)[:, :2]
        self._lids_open[side, i] = lids.opening(eyes)
    if i in self._with_picture:
      square = tracked.track.window[number]
      self.looked_at.append((real, after, square, _mouth(tracked, number)))
    if i in self._with_seam:
      self._look_closely(i, number, real, after)
    self._last = i, real, after

  def _look_closely(self, i, number, real, after) -> None:
    """Measures what takes masks: seam, flicker, sharpness, pixels."""
    tracked, frames = self._tracked, np.array([number])
    square = tracked.track.window[number]
    mask = tracked.face_masks(frames, SIZE)[0]
    if self._last is not None and self._last[0] == i - 1:
      region = mask & ~tracked.mouth_masks(frames, SIZE)[0]
      squares = tracked.track.window[self._index[[i - 1, i]]]
      befores = zip(self._last[1:], (real, after), strict=True)
      self._flickers.append([_change(x, squares, region) for x in befores])
    pair = [crops.crop_window(x, square, SIZE) for x in (real, after)]
    # As of a network of the smallest side, whose masks are the widest.
    shown = crops.covered(mask, _SMALLEST)
    changed = blending.changed_region(shown, SIZE, square[2])
    self._around.add(*pair, ~changed)
    self._inside.add(*pair, mask)
    self._beyond.add(real, after, _outside(real.shape[:2], square))
    self._energies.append(
      sharpness.energy(np.stack(pair), np.stack([mask[..., None]] * 2))
    )
    at = reenactment.Edges(np.stack([changed, changed]))
    self.edges.append(at.gradients(np.stack(pair)))

  def screened(self, waveform: Float[np.ndarray, "n"] | None) -> Screened:
    """Returns the figures of all that was added."""
    edges = np.array(self.edges)  # Frame, kind, source or video.
    seams = [seam.ratio(e[:, 1], e[:, 0]) for e in edges.swapaxes(0, 1)]
    moved = [jitter.acceleration(x[:, morphable.RIGID]) for x in self._points]
    rate = float(self._tracked.video.rate)
    present = self._tracked.track.present[self._index]
    return Screened(
      num_frames=len(self._index),
      num_faceless=int((~present).sum()),
      outside_window=self._beyond.decibels,
      outside_mask=self._around.decibels,
      changed_outside=self._around.changed,
      inside_mask=self._inside.decibels,
      seam_edge=seams[0],
      seam_feather=seams[1],
      seam_tone=seams[2],
      jitter=jitter.ratio(moved[1], moved[0]),
      flicker=flicker.ratio(*np.reshape(self._flickers, (-1, 2)).T[::-1]),
      sharpness=sharpness.ratio(*np.array(self._energies).T[::-1]),
      blinks=_blinks(self._lids_open),
      following=float("nan"),
      lateness=float("nan"),
      **_openings(self._points, waveform, rate),
    )


def _change(frames, squares, region) -> float:
  """Measures the flicker of a frame's window against the one before."""
  pairs = zip(frames, squares, strict=True)
  return flicker.change(*(crops.crop_window(*p, SIZE) for p in pairs), region)


def _blinks(lids_open: Float[np.ndarray, "2 t"]) -> float:
  """Returns NaN where no eyes were seen in two frames of both."""
  if np.isfinite(lids_open).all(0).sum() < 2:
    return float("nan")
  return lips.correlation(*lids_open)


def _openings(points, waveform, fps: float) -> dict:
  """Measures how far the lips are open, and in silence: fields of Screened."""
  face = points[0, :, lips.FOREHEAD] - points[0, :, lips.CHIN]
  height = np.nanmedian(np.linalg.norm(face, axis=1))
  source, output = (100 * lips.opening(x) / height for x in points)
  quiet = np.isfinite(output)
  quiet &= waveform is not None and silent(waveform, fps, len(output))
  rest, some = output[quiet], quiet.any()
  return {
    "source_opening": _percentiles(source),
    "output_opening": _percentiles(output),
    "num_silent": len(rest),
    "silent_opening": float(np.median(rest)) if some else float("nan"),
    "silent_rank": lips.silence_rank(rest, source) if some else float("nan"),
  }


def _pairs(
  tracked, video, index: Int[np.ndarray, "_"], first: int
) -> Iterator[tuple[Picture, Picture]]:
  """Yields (frame of the source, frame of the video), from the first on."""
  rate = tracked.video.rate
  source = fill.read(tracked.path, tracked.track.times, index)
  # Half a frame early: times are rounded.
  start = max(0.0, float((first - Fraction(1, 2)) / rate))
  made = video_reader.read_frames(video, start=start)
  made = itertools.islice(made, len(index))
  for (_, before), (_, after) in zip(source, made, strict=True):
    yield before, after


def _mouth(tracked, number: int) -> Float[np.ndarray, "3"]:
  """Returns a square about the source's mouth with some of the face."""
  points = tracked.landmarks(number)
  centre = points[morphable.LIPS].mean(0)
  return np.append(centre, 0.5 * np.ptp(points[:, 1])).astype(np.float32)


def _outside(size: tuple[int, int], square) -> Bool[np.ndarray, "r c"]:
  """Returns the pixels of a frame that the window does not touch."""
  x, y, side = square
  rows, columns = np.ogrid[: size[0], : size[1]]
  inside = (rows + 1 > y - side / 2) & (rows < y + side / 2)
  return ~(inside & (columns + 1 > x - side / 2) & (columns < x + side / 2))


def _pictures(looked_at) -> dict[str, np.ndarray]:
  """Crops the sheet's rows: windows and mouths of source and video."""
  names = ("source", "reenacted", "mouth of the source", "reenacted mouth")
  rows = {name: [] for name in names}
  for real, after, *places in looked_at:
    names = iter(rows)
    for place in places:
      for frame in (real, after):
        rows[next(names)].append(crops.crop_window(frame, place, 256))
  return {name: np.stack(pictures) for name, pictures in rows.items()}


def _evenly(num: int, most: int) -> Int[np.ndarray, "_"]:
  return np.linspace(0, num - 1, min(num, most)).round().astype(int)


def _percentiles(values) -> tuple[float, float, float]:
  low, middle, high = np.nanpercentile(values, (CLOSED, 50, 95))
  return float(low), float(middle), float(high)
