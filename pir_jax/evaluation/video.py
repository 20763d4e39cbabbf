"""A reenacted video beside the video it was made of; no truth is needed.

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
from pir_jax.face import detector, morphable
from pir_jax.inference.reenactor import person
from pir_jax.media import crops, pingpong, plots, video_reader
from pir_jax.metrics import jitter, lips, seam
from pir_jax.preparation import tracking
from pir_jax.types import SAMPLE_RATE, InputError

SIZE = 512  # Side of the windows compared.
SILENCE = 35.0  # Decibels under the loudest second.
_QUIET = -60.0  # Decibels that are silence whatever the loudest second is.
_SETTLING = 0.2  # Seconds at each end of silence in which lips may still move.
CLOSED = 5.0  # Percentile of the source's openings that counts as closed.
# The detector's own noise, and about a millimetre: in % of face height.
_TOLERANCE = 0.5
_MAX_SEAMS = 200  # Frames in which seams are measured, evenly spaced.
_COLUMNS = 8

Path = str | pathlib.Path
Picture = UInt8[np.ndarray, "_ _ 3"]


class Screened(NamedTuple):
  """What was measured; not-a-number where there was nothing to measure.

  Openings are in % of the height of the source's face.

  Attributes:
    num_frames: of the reenacted video.
    num_faceless: of them, made of a source frame without a face.
    outside_window: decibels between the two outside the window.
    outside_mask: the same inside the window, outside the mask.
    changed_outside: share of these pixels that differ by more than 8 of 255.
    inside_mask: decibels inside the mask: what was painted differs.
    seam_edge, seam_feather, seam_tone, jitter: ratios to the source's own, as
      `measures.Measured` has them.
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
  source_opening: tuple[float, float, float]
  output_opening: tuple[float, float, float]
  num_silent: int
  silent_opening: float
  silent_rank: float

  @property
  def closed(self) -> bool:
    """In silence the mouth is as closed as in the source's most closed."""
    return self.silent_opening <= self.source_opening[0] + _TOLERANCE


class Difference:
  """Squared differences of pixels, summed up over frames."""

  def __init__(self):
    self._total = self._count = self._far = 0

  def add(self, a: Picture, b: Picture, where: np.ndarray) -> None:
    """Takes the pixels of one frame."""
    gap = a[where].astype(np.int32) - b[where]
    self._total += int(np.square(gap).sum())
    self._count += len(gap)
    self._far += int((np.abs(gap).max(-1, initial=0) > 8).sum())

  @property
  def decibels(self) -> float:
    """PSNR over all of them; infinite where nothing differs."""
    if not self._count:
      return float("nan")
    error = self._total / (3 * self._count * 255**2)
    return float(-10 * np.log10(error)) if error else float("inf")

  @property
  def changed(self) -> float:
    """Share of the pixels that differ by more than 8 in a colour."""
    return self._far / self._count if self._count else float("nan")


def silent(
  waveform: Float[np.ndarray, "n"], rate: float, count: int
) -> Bool[np.ndarray, "count"]:
  """Which frames lie in silence.

  Their own sound and all within 0.2 s of it is SILENCE under the loudest
  second, or is below -60 dB. Where the sound has ended there is silence.

  Args:
    waveform: at SAMPLE_RATE.
    rate: frames a second.
    count: of frames.
  """
  edges = (np.arange(count + 1) / rate * SAMPLE_RATE).round().astype(int)
  power = np.append(0, np.cumsum(np.square(waveform, dtype=np.float64)))

  def decibels(start, stop):
    start, stop = (np.minimum(x, len(waveform)) for x in (start, stop))
    mean = (power[stop] - power[start]) / np.maximum(stop - start, 1)
    return 10 * np.log10(np.maximum(mean, 1e-12))

  starts = np.arange(0, max(len(waveform) - SAMPLE_RATE, 0) + 1, 160)
  loudest = decibels(starts, starts + SAMPLE_RATE).max()
  level = decibels(edges[:-1], edges[1:])
  near = 2 * round(_SETTLING * rate) + 1
  # Past its end the sound is as silent as at its last frame, not more.
  around = ndimage.maximum_filter1d(level, near, mode="nearest")
  return around < max(loudest - SILENCE, _QUIET)


def report(
  model: Path, source: Path, video: Path, output: Path, audio: Path = ""
) -> str:
  """Writes the report on a reenacted video; returns its text.

  Args:
    model: folder of the runs that it was made with.
    source: the video that was reenacted.
    video: what came of it.
    output: folder for video.txt, .json and .png.
    audio: the driving speech; "" takes the sound of `video`.

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
  heard = None
  if audio or made.has_audio:
    heard = video_reader.read_audio(audio or video)
  who = person(pathlib.Path(model), before.sha256)
  seen = tracking.analyse(source, **who.analysis())
  found, shown = screen(seen, video, heard)
  text = as_text(found, pathlib.Path(video).name, seen.video.name)
  output.mkdir(parents=True, exist_ok=True)
  (output / "video.txt").write_text(text + "\n")
  (output / "video.json").write_text(
    json.dumps({k: _plain(v) for k, v in found._asdict().items()}, indent=2)
    + "\n"
  )
  plots.contact_sheet(shown, num_columns=_COLUMNS).save(output / "video.png")
  return text


def screen(
  seen: tracking.Footage,
  video: Path,
  heard: Float[np.ndarray, "n"] | None,
) -> tuple[Screened, dict[str, UInt8[np.ndarray, "_ h h 3"]]]:
  """Measures the video, and picks frames to look at.

  Args:
    seen: the source.
    video: made of it; the source plays there and back beneath.
    heard: the driving speech; None where there is none.
  """
  count = sum(1 for _ in video_reader.read_frames(video))
  index = pingpong.frame_indices(len(seen.track.times), count)
  beyond, around, inside = Difference(), Difference(), Difference()
  num_faceless = 0
  edges, looked_at = [], []
  points = np.full((2, count, detector.NUM_LANDMARKS, 2), np.nan, np.float32)
  tracker = detector.Tracker()
  with_seam = set(_evenly(count, _MAX_SEAMS).tolist())
  with_picture = set(_evenly(count, _COLUMNS).tolist())
  for i, real, after in _pairs(seen, video, count):
    number = int(index[i])
    if not seen.track.present[number]:
      num_faceless += 1
      continue
    square = seen.track.window[number]
    box = detector.box_of(_points(seen, number))
    for side, frame in enumerate((real, after)):
      points[side, i] = tracker.landmarks(frame, box)[0][:, :2]
    if i in with_picture:
      looked_at.append((real, after, square, _mouth(seen, number)))
    if i in with_seam:
      mask = seen.face_masks(np.array([number]), SIZE)[0]
      pair = [crops.crop_window(x, square, SIZE) for x in (real, after)]
      around.add(*pair, ~mask)
      inside.add(*pair, mask)
      beyond.add(real, after, _outside(real.shape[:2], square))
      at = reenactment.Edges(np.stack([mask, mask]))
      edges.append(at.gradients(np.stack(pair)))
  if not edges:
    raise InputError(f"{video} shows nowhere the face of {seen.path}.")
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
    **_openings(points, heard, float(seen.video.rate)),
  ), _pictures(looked_at)


def _openings(points, heard, rate: float) -> dict:
  """Fields of Screened that tell how far the lips are open, and when."""
  face = points[0, :, lips.FOREHEAD] - points[0, :, lips.CHIN]
  height = np.nanmedian(np.linalg.norm(face, axis=1))
  source, output = (100 * lips.opening(x) / height for x in points)
  quiet = np.isfinite(output)
  quiet &= heard is not None and silent(heard, rate, len(output))
  rest, some = output[quiet], quiet.any()
  return {
    "source_opening": _percentiles(source),
    "output_opening": _percentiles(output),
    "num_silent": len(rest),
    "silent_opening": float(np.median(rest)) if some else float("nan"),
    "silent_rank": lips.silence_rank(rest, source) if some else float("nan"),
  }


def as_text(found: Screened, video: str, source: str) -> str:
  """The numbers for a person."""
  ours, theirs = found.output_opening, found.source_opening
  lines = [
    f"{video} beside {source}: {found.num_frames} frames, "
    f"{found.num_faceless} of them without a face",
    "what was not painted (only the codec may change it):",
    f"  outside the window        {found.outside_window:8.1f} dB",
    f"  in it, outside the mask   {found.outside_mask:8.1f} dB, "
    f"{100 * found.changed_outside:.2f} % of pixels differ by more than 8/255",
    f"  inside the mask           {found.inside_mask:8.1f} dB",
    "ratios to the source's own:",
    f"  seam at the mask's edge   {found.seam_edge:8.2f}, in the feather "
    f"{found.seam_feather:.2f}, of its tone {found.seam_tone:.2f}",
    f"  jitter of the head        {found.jitter:8.2f}",
    "opening of the lips, % of face height (5, 50, 95 % of the frames):",
    "  source                    " + "".join(f"{v:8.2f}" for v in theirs),
    "  reenacted                 " + "".join(f"{v:8.2f}" for v in ours),
  ]
  if found.num_silent:
    verdict = "closed" if found.closed else "NOT closed"
    lines.append(
      f"  in silence ({found.num_silent} frames) {found.silent_opening:.2f}: "
      f"{verdict}; {100 * found.silent_rank:.0f} % of the source's frames are "
      f"more closed"
    )
  else:
    lines.append("  no silence in the sound")
  return "\n".join(lines)


def _pairs(seen, video, count: int) -> Iterator[tuple[int, Picture, Picture]]:
  """(number, frame of the source, frame of the video)."""
  source = pingpong.read(seen.path, seen.track.times, count)
  frames = zip(source, video_reader.read_frames(video), strict=True)
  for i, ((_, before), (_, after)) in enumerate(frames):
    yield i, before, after


def _points(seen, number: int) -> Float[np.ndarray, "k 2"]:
  """The source's landmarks in pixels of the frame."""
  *centre, side = seen.track.window[number]
  return seen.track.landmarks[number] * side + np.array(centre) - side / 2


def _mouth(seen, number: int) -> Float[np.ndarray, "3"]:
  """A square about the source's mouth and some of the face around it."""
  points = _points(seen, number)
  centre = points[morphable.LIPS].mean(0)
  return np.append(centre, 0.5 * np.ptp(points[:, 1])).astype(np.float32)


def _outside(size: tuple[int, int], square) -> Bool[np.ndarray, "r c"]:
  """Pixels of a frame that the window does not touch."""
  x, y, side = square
  rows, columns = np.ogrid[: size[0], : size[1]]
  inside = (rows + 1 > y - side / 2) & (rows < y + side / 2)
  return ~(inside & (columns + 1 > x - side / 2) & (columns < x + side / 2))


def _pictures(looked_at) -> dict[str, np.ndarray]:
  """Rows of the sheet: windows and mouths, of the source and the video."""
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
  """For JSON, which knows neither NaN nor infinity."""
  if isinstance(value, tuple):
    return [_plain(v) for v in value]
  return value if np.isfinite(value) else None
