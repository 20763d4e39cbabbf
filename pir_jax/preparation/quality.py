"""Measures what a clip is good for, in figures that a person can check.

All are plain values, kept as JSON in the clip's manifest; `quality_rules`
grades them, `quality_figures` and `quality_report` show them.

t source frames, k points of a curve, n audio samples, l landmarks, h height and
w width of a crop.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw

from pir_jax.face import sight
from pir_jax.media import loudness, video_reader
from pir_jax.metrics import detail, lids, sync
from pir_jax.preparation import (
  motion,
  phonemes,
  quality_figures,
  quality_rules,
  tracking,
  visibility,
)
from pir_jax.types import SAMPLE_RATE

NUM_POINTS = 240  # Of a curve: as many as a page has room for.
NUM_DETAIL_FRAMES = 8  # Frames whose sharpness is measured.
# Below this the lids' gap is a pixel or two, too little to count blinks.
SMALLEST_FOR_BLINKS = 100  # Pixels of face height.
SLOWEST_FOR_BLINKS = 20  # Frames a second; a blink lasts 0.1 to 0.4 s.
_NOISY = 4.0  # Grey levels of noise from which it would be taken for detail.
_BLINK_DEPTH = 0.15  # Share of the open eye by which the lids' gap must dip.
_BLINK_SECONDS = 0.4


@dataclasses.dataclass(kw_only=True, slots=True)
class Quality:
  """A clip's figures. None is unknown, and never stands for zero.

  Attributes:
    level: "good", "usable" or "rejected".
    reasons: why it is not "good": each a dict of `figure` (an attribute here),
      `level` (to which it leads), `what` and `remedy` in words.
    seconds, rate, width, height: of the video; rate in frames a second.
    num_frames: of the video.
    remarks: conversions on reading and oddities of the sound, see
      `media.frames.remarks` and `video_reader.sound_remarks`.
    measured, interpolated, absent: shares of the frames in which the face was
      tracked, was guessed from its neighbours, or is not known.
    longest_gap: seconds without a measured face at the longest.
    num_shots, num_people: seen in the video.
    learnable: share of the frames that show enough of the face to learn from.
    hidden, cut, text: shares of the frames with a face in which its lips are
      hidden, the border of the picture cuts it, or text lies over it.
    hidden_times, cut_times, text_times: [first, last] second of each time.
    light, white, even, tilt: medians over these frames: luma of the lower face,
      shares of it that are burnt out and without any shading, and degrees by
      which the head is tilted in the picture; see `face.sight`.
    noise_level: grey levels of the picture's noise on the face.
    lip_motion: range of the lips' opening, 5th to 95th percentile, as a share
      of face height.
    face_height, smallest_face: pixels from chin to forehead: median, and the
      height that a twentieth of the frames stay below.
    detail: size in pixels of the finest detail on the face, see
      `metrics.detail`; 1 is as sharp as its pixels allow.
    effective_height: face_height / detail: the pixels that carry detail.
    fit_error: RMS distance of the face model to the landmarks, as a share of
      face height.
    worst_error, worst_time: the largest of any frame, and its time in seconds.
    yaw, pitch, roll: [5th, 95th percentile] in degrees; to the person's left,
      up, and tilted towards their left shoulder are positive.
    blinks: a minute; None where the eyes are too small to tell.
    sound_seconds: of sound; 0 for a silent video.
    sound_rate: samples a second in the file, None without sound.
    loudness: LUFS (ITU-R BS.1770, one channel).
    noise, speech: dB of full scale of the quietest and loudest tenth.
    clipped, silence: shares of the samples and of the time.
    shift: seconds by which the sound comes later than the picture.
    shift_error: its standard error.
    shift_unknown: why it is unknown, else empty.
    num_phones, num_closures: speech sounds that it rests on, /p b m/ of them.
    curves: name -> values of the same k points, None where unknown: seconds,
      fit_error (share of face height), opening (share of face height),
      loudness (dB), yaw, pitch (degrees).
  """

  level: str = ""
  reasons: list[dict[str, str]] = dataclasses.field(default_factory=list)
  remarks: list[str] = dataclasses.field(default_factory=list)
  seconds: float
  rate: float
  width: int
  height: int
  num_frames: int
  measured: float
  interpolated: float
  absent: float
  longest_gap: float
  num_shots: int
  num_people: int
  learnable: float | None
  hidden: float | None
  cut: float | None
  text: float | None
  hidden_times: list[list[float]]
  cut_times: list[list[float]]
  text_times: list[list[float]]
  light: float | None
  white: float | None
  even: float | None
  tilt: float | None
  noise_level: float | None
  lip_motion: float | None
  face_height: float | None
  smallest_face: float | None
  detail: float | None
  effective_height: float | None
  fit_error: float | None
  worst_error: float | None
  worst_time: float | None
  yaw: list[float] | None
  pitch: list[float] | None
  roll: list[float] | None
  blinks: float | None
  sound_seconds: float
  sound_rate: int | None
  loudness: float | None
  noise: float | None
  speech: float | None
  clipped: float | None
  silence: float | None
  shift: float | None
  shift_error: float | None
  shift_unknown: str
  num_phones: int
  num_closures: int
  curves: dict[str, list[float | None]]


def measure(
  tracked: tracking.TrackedVideo,
  sound: Float[np.ndarray, "n"],
  config: quality_rules.Config | None = None,
) -> Quality:
  """Measures and grades a clip.

  Args:
    tracked: the clip.
    sound: of it, mono at SAMPLE_RATE from its first frame; empty without.
    config: limits between the levels.
  """
  track = tracked.track
  levels = loudness.measure(sound)
  opening = motion.openings(track.landmarks) * track.window[:, 2]
  height = _heights(tracked)
  turns = np.degrees(motion.angles(track.pose))
  turns[~track.present] = np.nan
  error = np.asarray(track.error / track.face_height, np.float64)
  shift = _shift(tracked, sound, opening / height)
  values = dict(
    seconds=_round(_duration(track.times)),
    rate=_round(float(tracked.video.rate), 3),
    width=tracked.video.width,
    height=tracked.video.height,
    num_frames=len(track.times),
    remarks=_remarks(tracked, sound),
    sound_rate=tracked.video.sound_rate,
    sound_seconds=_round(len(sound) / SAMPLE_RATE),
    shift=None if shift.seconds is None else _round(shift.seconds, 3),
    shift_error=_round(shift.uncertainty, 3),
    shift_unknown=shift.reason,
    num_phones=shift.num_phones,
    num_closures=shift.num_closures,
    curves=_curves(track.times, error, opening / height, sound, turns),
  )
  for name in ("loudness", "noise", "speech"):
    values[name] = _round(getattr(levels, name), 1)
  for name in ("clipped", "silence"):
    values[name] = _round(getattr(levels, name), 5)
  values |= _presence(tracked) | _face(tracked, error) | _turns(turns)
  values |= visibility.measure(tracked)
  values["lip_motion"] = _range((opening / height)[tracked.measured])
  values["blinks"] = _blinks(tracked)
  made = Quality(**values)
  made.level, made.reasons = quality_rules.grade(
    dataclasses.asdict(made), config
  )
  return made


def report(made: Quality) -> str:
  """Returns the figures in a few lines for a terminal."""
  return "\n".join(quality_figures.lines(dataclasses.asdict(made)))


def spread(frames: Int[np.ndarray, "_"], count: int) -> list[int]:
  """Returns at most `count` of some frames, evenly spread, ends included."""
  places = np.linspace(0, len(frames) - 1, min(count, len(frames)))
  return [int(frame) for frame in frames[places.round().astype(int)]]


def _heights(tracked: tracking.TrackedVideo) -> Float[np.ndarray, "t"]:
  """Returns the face height in source pixels, also where interpolated."""
  share = np.ptp(tracked.track.landmarks[..., 1], axis=1)
  return np.asarray(share * tracked.track.window[:, 2], np.float64)


def _remarks(tracked, sound) -> list[str]:
  notes = list(tracked.video.remarks)
  if len(sound):
    odd = video_reader.sound_remarks(tracked.path, sound)
    notes += [f"the sound {note}" for note in odd]
  return notes


def _shift(tracked, sound, opening) -> sync.Shift:
  if not len(sound):
    return sync.unknown("the video has no sound.")
  if not phonemes.available():
    return sync.unknown(f"speech sounds need a recogniser: {phonemes.EXTRA}.")
  phones = phonemes.recognise(sound)
  opening = np.where(tracked.track.present, opening, np.nan)
  return sync.estimate(
    tracked.track.times, opening, phones.names, phones.middle
  )


def _presence(tracked: tracking.TrackedVideo) -> dict:
  """Measures where the face is known; counts shots and people."""
  track, measured = tracked.track, tracked.measured
  step = _step(track.times)
  gap = longest = 0
  for known in measured:
    gap = 0 if known else gap + 1
    longest = max(longest, gap)
  shots = track.shot
  return dict(
    measured=_round(float(measured.mean()), 4),
    interpolated=_round(float((track.present & ~measured).mean()), 4),
    absent=_round(float((~track.present).mean()), 4),
    longest_gap=_round(longest * step),
    num_shots=len(np.unique(shots)),
    num_people=tracked.num_faces,
  )


def _face(
  tracked: tracking.TrackedVideo, error: Float[np.ndarray, "t"]
) -> dict:
  """Measures size and sharpness of the face, and the fit's error."""
  known = np.isfinite(error)
  names = (
    "face_height smallest_face detail noise_level effective_height fit_error"
    " worst_error worst_time"
  ).split()
  if not known.any():
    return dict.fromkeys(names)
  height = tracked.track.face_height[known]
  median = float(np.median(height))
  worst = int(np.nanargmax(error))
  finest, noise = _detail(tracked)
  effective = None if finest is None else median / finest
  rms = float(np.sqrt(np.mean(np.square(error[known]))))
  values = (
    _round(median, 1),
    _round(float(np.percentile(height, 5)), 1),
    _round(finest),
    _round(noise),
    _round(effective, 1),
    _round(rms, 5),
    _round(float(error[worst]), 5),
    _round(float(tracked.track.times[worst])),
  )
  return dict(zip(names, values, strict=True))


def _detail(
  tracked: tracking.TrackedVideo,
) -> tuple[float | None, float | None]:
  """Measures detail, pixels, and noise, grey levels: medians of some frames."""
  chosen = spread(np.flatnonzero(tracked.measured), NUM_DETAIL_FRAMES)
  sizes, noises = [], []
  for index, image in tracked.pictures(chosen):
    crop, mask = face_crop(image, tracked.landmarks(index))
    if mask.any():
      noises.append(detail.noise(crop, mask))
      # Fine structure adds to the estimate: less of it may be no noise.
      noise = noises[-1] if noises[-1] > _NOISY else 0.0
      sizes.append(detail.finest(crop, mask, noise))
  if not sizes:
    return None, None
  return float(np.median(sizes)), float(np.median(noises))


def face_crop(
  image: UInt8[np.ndarray, "_ _ 3"], landmarks: Float[np.ndarray, "l 2"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
  """Crops a picture to a face; returns where in the crop the face is, too."""
  size = np.array(image.shape[1::-1])
  low = np.floor(landmarks.min(0)).astype(int).clip(0, size - 1)
  high = np.ceil(landmarks.max(0)).astype(int).clip(low + 1, size)
  crop = image[low[1] : high[1], low[0] : high[0]]
  mask = Image.new("1", crop.shape[1::-1])
  outline = [tuple(map(float, p)) for p in landmarks[list(sight.OVAL)] - low]
  ImageDraw.Draw(mask).polygon(outline, fill=1)
  return crop, np.array(mask)


def _range(values: Float[np.ndarray, "_"]) -> float | None:
  if not len(values):
    return None
  low, high = np.percentile(values, (5, 95))
  return _round(high - low, 4)


def _turns(turns: Float[np.ndarray, "t 3"]) -> dict:
  if not np.isfinite(turns).any():
    return dict.fromkeys(("yaw", "pitch", "roll"))
  low, high = np.nanpercentile(turns, (5, 95), axis=0)
  return {
    name: [_round(float(low[i]), 1), _round(float(high[i]), 1)]
    for i, name in enumerate(("yaw", "pitch", "roll"))
  }


def _blinks(tracked: tracking.TrackedVideo) -> float | None:
  """Counts blinks a minute of measured frames: dips of the lids' gap."""
  track, measured = tracked.track, tracked.measured
  step = _step(track.times)
  large = measured.any() and (
    np.nanmedian(track.face_height) >= SMALLEST_FOR_BLINKS
  )
  if not large or 1 / step < SLOWEST_FOR_BLINKS - 1e-6:
    return None
  ratio = lids.opening(track.landmarks[..., :2])
  ratio = ratio / np.percentile(ratio[measured], 90)
  count = motion.count_dips(
    np.where(measured, ratio, np.nan),
    round(_BLINK_SECONDS / step),
    _BLINK_DEPTH,
  )
  return _round(60 * count / (measured.sum() * step), 1)


def _curves(times, error, opening, sound, turns) -> dict:
  """Thins each curve to a few hundred points: largest errors, else means."""
  count = min(NUM_POINTS, len(times))
  edges = np.linspace(0, len(times), count + 1).astype(int)
  ends = np.append(times, times[-1] + _step(times))
  samples = (ends[edges] * SAMPLE_RATE).astype(int).clip(0, len(sound))

  def points(values, of, digits):
    rows = (values[a:b] for a, b in zip(edges, edges[1:], strict=False))
    rows = (row[np.isfinite(row)] for row in rows)
    return [_round(float(of(r)), digits) if len(r) else None for r in rows]

  levels = []
  for a, b in zip(samples, samples[1:], strict=False):
    if b > a:
      (level,) = loudness.frame_levels(sound[a:b], (b - a) / SAMPLE_RATE)
    levels.append(_round(level, 1) if b > a else None)
  return dict(
    seconds=[_round(float(t)) for t in times[edges[:-1]]],
    fit_error=points(error, np.max, 5),
    opening=points(opening, np.mean, 4),
    loudness=levels,
    yaw=points(turns[:, 0], np.mean, 1),
    pitch=points(turns[:, 1], np.mean, 1),
  )


def _step(times: Float[np.ndarray, "t"]) -> float:
  """Returns the median time of a frame; 1/25 s for a single one."""
  return float(np.median(np.diff(times))) if len(times) > 1 else 0.04


def _duration(times: Float[np.ndarray, "t"]) -> float:
  return float(times[-1] - times[0]) + _step(times)


def _round(value: float | None, digits: int = 2) -> float | None:
  """Rounds, so that files do not change with the last bit."""
  return None if value is None else round(float(value), digits)
