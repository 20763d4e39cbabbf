"""What a clip is good for: figures a person can check, and a verdict.

Everything here is a plain number, text or list, so that it can be kept as JSON
beside the prepared clip; `verdict.py` judges it and `page.py` shows it.

t source frames, k points of a curve, n audio samples, l landmarks.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from pir_jax.media import loudness
from pir_jax.metrics import detail, lips, sync
from pir_jax.preparation import filmstrip, phonemes, quality_rules, tracking
from pir_jax.types import SAMPLE_RATE

NUM_POINTS = 240  # Of a curve: as many as a page has room for.
_PART = 4096  # Frames that are measured together.
NUM_LOOKED_AT = 8  # Frames whose sharpness is measured.
# Below this the lids' gap is a pixel or two, and blinks are not told apart.
SMALLEST_FOR_BLINKS = 100  # Pixels of face height.
SLOWEST_FOR_BLINKS = 20  # Frames a second; a blink lasts 0.1 to 0.4 s.
_BLINK_DEPTH = 0.15  # Share of the open eye by which the lids' gap must dip.
_BLINK_SECONDS = 0.4
# (upper, lower, outer, inner) of each eye, points of the face mesh.
_EYES = ((159, 145, 33, 133), (386, 374, 263, 362))


@dataclasses.dataclass(kw_only=True, slots=True)
class Appraisal:
  """A clip in numbers. None is unknown, and never stands for zero.

  Attributes:
    verdict: "good", "usable" or "rejected".
    reasons: why it is not "good": each a dict of `figure` (an attribute here),
      `level` (the verdict it leads to), `what` and `remedy` in words.
    seconds, rate, width, height: of the video; rate in frames a second.
    num_frames: of the video.
    measured, interpolated, absent: shares of the frames in which the face was
      seen, was guessed from its neighbours, or is not known.
    longest_gap: seconds without a measured face at the longest.
    num_shots, num_people: seen in the video.
    face_height, smallest_face: pixels from chin to forehead: median, and the
      height that a twentieth of the frames stay below.
    detail: size in pixels of the finest detail on the face, see
      `metrics.detail`; 1 is as sharp as its pixels allow.
    effective_height: face_height / detail: the pixels that say something.
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

  verdict: str = ""
  reasons: list[dict[str, str]] = dataclasses.field(default_factory=list)
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


def appraise(
  seen: tracking.Footage,
  sound: Float[np.ndarray, "n"],
  config: quality_rules.Config | None = None,
) -> Appraisal:
  """Measures and judges a clip.

  Args:
    seen: the clip.
    sound: of it, mono at SAMPLE_RATE from its first frame; empty without.
    config: thresholds of the verdict.
  """
  track = seen.track
  levels = loudness.measure(sound)
  opening = _openings(track.landmarks) * track.window[:, 2]
  height = _heights(seen)
  turns = np.degrees(angles(track.pose))
  turns[~track.present] = np.nan
  error = np.asarray(track.error / track.face_height, np.float64)
  shift = _shift(seen, sound, opening / height)
  values = dict(
    seconds=_round(_duration(track.times)),
    rate=_round(float(seen.video.rate), 3),
    width=seen.video.width,
    height=seen.video.height,
    num_frames=len(track.times),
    sound_rate=seen.video.sound_rate,
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
  values |= _presence(seen) | _face(seen, error) | _turns(turns)
  values["blinks"] = _blinks(seen)
  made = Appraisal(**values)
  made.verdict, made.reasons = quality_rules.judge(
    dataclasses.asdict(made), config
  )
  return made


def pictures(seen: tracking.Footage) -> bytes:
  """A JPEG strip through the clip, landmarks and mask drawn in."""
  return filmstrip.draw(seen)


def report(made: Appraisal) -> str:
  """The appraisal in a few lines for a terminal."""
  return "\n".join(quality_rules.lines(dataclasses.asdict(made)))


def angles(
  pose: Float[np.ndarray, "t 4 4"],
) -> Float[np.ndarray, "t 3"]:
  """Yaw, pitch and roll of the head before the camera, radians.

  Zero looks into the camera's direction; signs as in `Appraisal`.

  Args:
    pose: camera-to-world, the world being the head's frame (y up, z out of
      the face), OpenCV axes.
  """
  # Rows of camera-to-world are the head's axes in the camera.
  ahead, up = pose[:, 2, :3], pose[:, 1, :3]
  yaw = np.arctan2(ahead[:, 0], -ahead[:, 2])
  pitch = np.arcsin(np.clip(-ahead[:, 1], -1, 1))
  # What is left once the head is turned back: the tilt about the view.
  level = np.stack([np.cos(yaw), np.zeros(len(yaw)), np.sin(yaw)], -1)
  across = np.sum(up * level, -1)
  roll = np.arctan2(across, np.sqrt(np.maximum(1 - across**2, 0)))
  return np.stack([yaw, pitch, roll], -1).astype(np.float64)


def _heights(seen: tracking.Footage) -> Float[np.ndarray, "t"]:
  """Face height in source pixels, of guessed frames too."""
  share = np.ptp(seen.track.landmarks[..., 1], axis=1)
  return np.asarray(share * seen.track.window[:, 2], np.float64)


def _openings(
  landmarks: Float[np.ndarray, "t l _"],
) -> Float[np.ndarray, "t"]:
  """Of the lips; a part at a time, since doubles of an hour are a lot."""
  parts = range(0, len(landmarks), _PART)
  return np.concatenate(
    [lips.opening(landmarks[i : i + _PART, :, :2]) for i in parts]
  )


def _shift(seen, sound, opening) -> sync.Shift:
  if not len(sound):
    return sync.unknown("the video has no sound.")
  if not phonemes.available():
    return sync.unknown(f"speech sounds need a recogniser: {phonemes.EXTRA}.")
  heard = phonemes.recognise(sound)
  opening = np.where(seen.track.present, opening, np.nan)
  return sync.estimate(seen.track.times, opening, heard.names, heard.middle)


def _presence(seen: tracking.Footage) -> dict:
  """Where the face is known; shots and people."""
  track, measured = seen.track, seen.measured
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
    num_people=seen.num_faces,
  )


def _face(seen: tracking.Footage, error: Float[np.ndarray, "t"]) -> dict:
  """Size and sharpness of the face, and how well the model fits it."""
  known = np.isfinite(error)
  names = (
    "face_height smallest_face detail effective_height fit_error"
    " worst_error worst_time"
  ).split()
  if not known.any():
    return dict.fromkeys(names)
  height = seen.track.face_height[known]
  median = float(np.median(height))
  worst = int(np.nanargmax(error))
  finest = _detail(seen)
  effective = None if finest is None else median / finest
  rms = float(np.sqrt(np.mean(np.square(error[known]))))
  values = (
    _round(median, 1),
    _round(float(np.percentile(height, 5)), 1),
    _round(finest),
    _round(effective, 1),
    _round(rms, 5),
    _round(float(error[worst]), 5),
    _round(float(seen.track.times[worst])),
  )
  return dict(zip(names, values, strict=True))


def _detail(seen: tracking.Footage) -> float | None:
  """Median over some frames of the finest detail on the face, pixels."""
  measured = np.flatnonzero(seen.measured)
  chosen = filmstrip.spread(measured, NUM_LOOKED_AT)
  found = []
  for index, image in filmstrip.frames(seen, chosen):
    crop, mask = filmstrip.face(image, filmstrip.points(seen, index))
    if mask.any():
      found.append(detail.finest(crop, mask))
  return float(np.median(found)) if found else None


def _turns(turns: Float[np.ndarray, "t 3"]) -> dict:
  if not np.isfinite(turns).any():
    return dict.fromkeys(("yaw", "pitch", "roll"))
  low, high = np.nanpercentile(turns, (5, 95), axis=0)
  return {
    name: [_round(float(low[i]), 1), _round(float(high[i]), 1)]
    for i, name in enumerate(("yaw", "pitch", "roll"))
  }


def _blinks(seen: tracking.Footage) -> float | None:
  """Blinks a minute of measured frames: dips of the gap between the lids."""
  track, measured = seen.track, seen.measured
  step = _step(track.times)
  large = measured.any() and (
    np.nanmedian(track.face_height) >= SMALLEST_FOR_BLINKS
  )
  if not large or 1 / step < SLOWEST_FOR_BLINKS - 1e-6:
    return None
  points = track.landmarks[..., :2]

  def length(a, b):
    return np.linalg.norm(points[:, a] - points[:, b], axis=1)

  gaps = sum(length(upper, lower) for upper, lower, _, _ in _EYES)
  ratio = gaps / sum(length(outer, inner) for _, _, outer, inner in _EYES)
  ratio = ratio / np.percentile(ratio[measured], 90)
  count = count_dips(
    np.where(measured, ratio, np.nan),
    round(_BLINK_SECONDS / step),
    _BLINK_DEPTH,
  )
  return _round(60 * count / (measured.sum() * step), 1)


def count_dips(values: Float[np.ndarray, "t"], reach: int, depth: float) -> int:
  """How often a curve falls by `depth` and rises again, within `reach` each."""
  count, last = 0, -reach
  for place in np.flatnonzero(np.isfinite(values)):
    before = values[max(0, place - reach) : place + 1]
    after = values[place : place + reach + 1]
    lowest = min(np.nanmin(before), np.nanmin(after))
    rim = min(np.nanmax(before), np.nanmax(after))
    if values[place] == lowest and rim - lowest >= depth:
      count += int(place - last > reach // 2)
      last = place
  return count


def _curves(times, error, opening, sound, turns) -> dict:
  """A few hundred points of each curve: the worst error, means else."""
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
  """Median time of a frame; 1/25 s for a single one."""
  return float(np.median(np.diff(times))) if len(times) > 1 else 0.04


def _duration(times: Float[np.ndarray, "t"]) -> float:
  return float(times[-1] - times[0]) + _step(times)


def _round(value: float | None, digits: int = 2) -> float | None:
  """For people and for files that do not change with the last bit."""
  return None if value is None else round(float(value), digits)
