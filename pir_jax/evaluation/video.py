"""A reenacted video beside its source video; no ground truth is needed.

t frames of the reenacted video, k landmarks, n audio samples, h side of the
window compared.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from pir_jax.evaluation import reenactment
from pir_jax.face import detector, eyelids, morphable
from pir_jax.inference.loading import known_people
from pir_jax.inference.person import person_in
from pir_jax.media import blending, crops, fill, plots, video_reader
from pir_jax.metrics import flicker, jitter, lids, lips, seam
from pir_jax.preparation import seen, tracking
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
_COLUMNS = 8

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
    blinks: correlation of how far the eyes are open in both.
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
  blinks: float
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


def report(
  model: Path,
  source: Path,
  video: Path,
  output: Path,
  audio: Path = "",
  way: str = "bounce",
) -> str:
  """Writes the report on a reenacted video; returns its text.

  Args:
    model: folder of the runs that it was made with.
    source: the video that was reenacted.
    video: what came of it.
    output: folder for video.txt, .json and .png.
    audio: the driving speech; "" takes the sound of `video`.
    way: in which the source was filled up to the speech, one of `fill.WAYS`.

  Raises:
    InputError: a file cannot be used, or the video is of another size or rate.
  """
  output = pathlib.Path(output)
  made, before = video_reader.probe(video), video_reader.probe(source)
  if (made.width, made.height) != (before.width, before.height):
    raise InputError(
      f"{video} has {made.width}x{made.height} pixels and {source} "
      f"{before.width}x{before.height}: it was not made of that."
    )
  # The mean rate of a file depends a little on where its last frame ends.
  if abs(made.rate / before.rate - 1) > 0.02:
    raise InputError(
      f"{video} shows {float(made.rate):.2f} frames a second and {source} "
      f"{float(before.rate):.2f}: it was not made of that."
    )
  waveform = None
  if audio or made.has_audio:
    waveform = video_reader.read_audio(audio or video)
  known = person_in(known_people(model), before.sha256)
  options = known.tracking_options()
  if len(known.look):  # As `reenact`: whoever looks like them.
    options |= {"face": None, "expected": known.look}
  tracked = seen.track(source, video=before, **options)
  screened, pictures = screen(tracked, video, waveform, way)
  text = as_text(screened, pathlib.Path(video).name, tracked.video.name)
  output.mkdir(parents=True, exist_ok=True)
  (output / "video.txt").write_text(text + "\n")
  (output / "video.json").write_text(
    json.dumps({k: _plain(v) for k, v in screened._asdict().items()}, indent=2)
    + "\n"
  )
  plots.contact_sheet(pictures, num_columns=_COLUMNS).save(output / "video.png")
  return text


def screen(
  tracked: tracking.TrackedVideo,
  video: Path,
  waveform: Float[np.ndarray, "n"] | None,
  way: str = "bounce",
) -> tuple[Screened, dict[str, UInt8[np.ndarray, "_ h h 3"]]]:
  """Measures the video, and picks frames to look at.

  Args:
    tracked: the source.
    video: made of it.
    waveform: the driving speech; None where there is none.
    way: in which the source was filled up to it, one of `fill.WAYS`.
  """
  count = sum(1 for _ in video_reader.read_frames(video))
  index = fill.frame_indices(len(tracked.track.times), count, way)
  beyond, around, inside = Difference(), Difference(), Difference()
  num_faceless = 0
  edges, looked_at = [], []
  points = np.full((2, count, detector.NUM_LANDMARKS, 2), np.nan, np.float32)
  tracker, eyes = detector.Tracker(), eyelids.Eyes()
  lids_open = np.full((2, count), np.nan)
  flickers, last = [], None
  with_seam = set(_evenly(count, _MAX_SEAMS).tolist())
  with_picture = set(_evenly(count, _COLUMNS).tolist())
  for i, real, after in _pairs(tracked, video, index):
    number = int(index[i])
    if not tracked.track.present[number]:
      num_faceless += 1
      continue
    square = tracked.track.window[number]
    box = detector.box_of(tracked.landmarks(number))
    for side, frame in enumerate((real, after)):
      detected = tracker.landmarks(frame, box)[0]
      points[side, i] = detected[:, :2]
      if np.isfinite(detected).all():
        lids_open[side, i] = lids.opening(eyes.refine(frame, detected)[:, :2])
    if i in with_picture:
      looked_at.append((real, after, square, _mouth(tracked, number)))
    if i in with_seam:
      frames = np.array([number])
      mask = tracked.face_masks(frames, SIZE)[0]
      if last is not None and last[0] == i - 1:
        region = mask & ~tracked.mouth_masks(frames, SIZE)[0]
        squares = tracked.track.window[index[[i - 1, i]]]
        flickers.append(
          [
            _change(frames, squares, region)
            for frames in zip(last[1:], (real, after), strict=True)
          ]
        )
      pair = [crops.crop_window(x, square, SIZE) for x in (real, after)]
      # As of a network of the smallest side, whose masks are the widest.
      shown = crops.covered(mask, _SMALLEST)
      changed = blending.changed_region(shown, SIZE, square[2])
      around.add(*pair, ~changed)
      inside.add(*pair, mask)
      beyond.add(real, after, _outside(real.shape[:2], square))
      at = reenactment.Edges(np.stack([changed, changed]))
      edges.append(at.gradients(np.stack(pair)))
    last = i, real, after
  if not edges:
    raise InputError(f"{video} shows nowhere the face of {tracked.path}.")
  edges = np.array(edges)  # Frame, kind, source or video.
  seams = [seam.ratio(e[:, 1], e[:, 0]) for e in edges.swapaxes(0, 1)]
  moved = [jitter.acceleration(x[:, morphable.RIGID]) for x in points]
  return Screened(
    num_frames=count,
    num_faceless=num_faceless,
    outside_window=beyond.decibels,
    outside_mask=around.decibels,
    changed_outside=around.changed,
    inside_mask=inside.decibels,
    seam_edge=seams[0],
    seam_feather=seams[1],
    seam_tone=seams[2],
    jitter=jitter.ratio(moved[1], moved[0]),
    flicker=flicker.ratio(*np.reshape(flickers, (-1, 2)).T[::-1]),
    blinks=_blinks(lids_open),
    **_openings(points, waveform, float(tracked.video.rate)),
  ), _pictures(looked_at)


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


def as_text(screened: Screened, video: str, source: str) -> str:
  """Formats the figures for a person."""
  ours, theirs = screened.output_opening, screened.source_opening
  lines = [
    f"{video} beside {source}: {screened.num_frames} frames, "
    f"{screened.num_faceless} of them without a face",
    "what was not inpainted (only the codec may change it):",
    f"  outside the window        {screened.outside_window:8.1f} dB",
    f"  in it, outside the mask   {screened.outside_mask:8.1f} dB, "
    f"{100 * screened.changed_outside:.2f} % of pixels differ by more than "
    "8/255",
    f"  inside the mask           {screened.inside_mask:8.1f} dB",
    "ratios to the source's own:",
    f"  seam at the mask's edge   {screened.seam_edge:8.2f}, in the feather "
    f"{screened.seam_feather:.2f}, of its tone {screened.seam_tone:.2f}",
    f"  jitter of the head        {screened.jitter:8.2f}",
    f"  flicker inside the mask   {screened.flicker:8.2f}",
    f"eyelids follow the source's  {screened.blinks:7.2f} (correlation)",
    "opening of the lips, % of face height (5, 50, 95 % of the frames):",
    "  source                    " + "".join(f"{v:8.2f}" for v in theirs),
    "  reenacted                 " + "".join(f"{v:8.2f}" for v in ours),
  ]
  if screened.num_silent:
    verdict = "closed" if screened.closed else "NOT closed"
    lines.append(
      f"  in silence ({screened.num_silent} frames) "
      f"{screened.silent_opening:.2f}: {verdict}; "
      f"{100 * screened.silent_rank:.0f} % of the source's frames are more "
      "closed"
    )
  else:
    lines.append("  no silence in the sound")
  return "\n".join(lines)


def _pairs(
  tracked, video, index: Int[np.ndarray, "_"]
) -> Iterator[tuple[int, Picture, Picture]]:
  """Yields (number, frame of the source, frame of the video)."""
  source = fill.read(tracked.path, tracked.track.times, index)
  frames = zip(source, video_reader.read_frames(video), strict=True)
  for i, ((_, before), (_, after)) in enumerate(frames):
    yield i, before, after


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


def _plain(value):
  """Returns None for NaN and infinity, which JSON does not know."""
  if isinstance(value, tuple):
    return [_plain(v) for v in value]
  return value if np.isfinite(value) else None
