"""How well lips follow the speech of people whom stage 1 never saw.

One row a clip, at its own shift of sound: footage is often out of step, and a
wrong shift looks like a wrong prediction.
k ticks of FRAME_RATE, v values of rows, r resamples.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pir_jax.data import speech_augmentation
from pir_jax.data.dataset import Clip
from pir_jax.evaluation import expression as expression_lib
from pir_jax.face import morphable
from pir_jax.metrics import landmarks, lips, sync
from pir_jax.preparation import phonemes
from pir_jax.runs.run import Run
from pir_jax.runs.speech_shift import MAX_SHIFT
from pir_jax.types import FRAME_RATE, Cameras

HOP = speech_augmentation.HOP
NO_PHONES = phonemes.Phones((), np.zeros(0))
_QUIET = 0.01  # Of the loudest ticks' power, -20 dB: below it nobody speaks.
_NUM_RESAMPLES = 2000
_PERCENT = (2.5, 97.5)


class Row(NamedTuple):
  """A clip of somebody held out.

  Attributes:
    source: name of the video.
    speaker: in it.
    seconds: that were measured.
    shift: ticks by which its sound comes late, at the best correlation.
    in_place: correlation of the lips' opening as the clip is.
    correlation: at the clip's shift.
    shuffled: mean correlation of shuffled audio at that shift, between the
      first and the last sound: pauses before and after stay where they are.
    distance: of lip landmarks, recentred to the person's mean, pixels.
    of_mean: the same of the person's mean expression.
    sounds: openings (mm) at open vowels and at /p b m/; NaN where no such sound
      is recognised.
    sounds_of_fit: the same of the fit.
    rest: rank of the opening in inserted silence among all frames, 0 is closed.
  """

  source: str
  speaker: str
  seconds: float
  shift: int
  in_place: float
  correlation: float
  shuffled: float
  distance: float
  of_mean: float
  sounds: tuple[float, float]
  sounds_of_fit: tuple[float, float]
  rest: float

  @property
  def gain(self) -> float:
    """Share by which the distance is below that of the person's mean."""
    return 1 - self.distance / self.of_mean


def measure(
  clip: Clip,
  run: Run,
  model: morphable.FaceModel,
  recognise: Callable[[np.ndarray], phonemes.Phones] | None = None,
) -> Row:
  """Measures the longest passage of a clip's held-out part.

  Args:
    clip: with somebody held out.
    run: of the expression stage.
    model: the head.
    recognise: phones of speech; without it closures are not measured.

  Raises:
    InputError: it has no speech there.
  """
  rows = [
    measure_passage(passage, clip.speaker, run, model, recognise)
    for passage in expression_lib.passages(clip)
  ]
  return max(rows, key=lambda row: row.seconds)


def measure_passage(
  passage: expression_lib.Passage,
  speaker: str,
  run: Run,
  model: morphable.FaceModel,
  recognise: Callable[[np.ndarray], phonemes.Phones] | None = None,
) -> Row:
  """Measures a run of speech."""
  head = expression_lib.Head(model, passage.identity)
  kept = passage.held_out

  predict = expression_lib.predictor(passage, run)
  ours = predict(passage.waveform)[: len(kept)]
  true, opening = head.opening(passage.fitted), head.opening(ours)
  by_shift = correlations(opening, true, kept)
  shift = max(by_shift, key=by_shift.get)
  first, last = _speech(passage.waveform)
  inside = (
    kept & (np.arange(len(kept)) >= first) & (np.arange(len(kept)) < last)
  )
  shuffled = [
    head.opening(
      predict(_rolled(passage.waveform, first, last, samples))[: len(kept)]
    )
    for samples in expression_lib.shuffles(last - first)
  ]
  names, middle = recognise(passage.waveform) if recognise else NO_PHONES
  middle = middle - shift / FRAME_RATE
  ticks = np.arange(len(kept)) / FRAME_RATE
  sounds, sounds_of_fit = (
    sync.openings_of_sounds(ticks, np.where(kept, x, np.nan), names, middle)
    for x in (_moved(opening, shift), true)
  )
  cameras = Cameras(*(x[kept] for x in passage.cameras))
  ours = _moved(ours, shift)[kept]
  ours = ours - ours.mean(0) + passage.stats.mean
  target = head.mouth(passage.fitted[kept], cameras)
  distance, of_mean = (
    landmarks.mouth_distance(head.mouth(x, cameras), target)
    for x in (ours, np.broadcast_to(passage.stats.mean, ours.shape))
  )
  return Row(
    source=passage.source,
    speaker=speaker,
    seconds=np.count_nonzero(kept) / FRAME_RATE,
    shift=shift,
    in_place=by_shift[0],
    correlation=by_shift[shift],
    shuffled=float(
      np.mean([_correlation(x, true, inside, shift) for x in shuffled])
    ),
    distance=distance,
    of_mean=of_mean,
    sounds=sounds,
    sounds_of_fit=sounds_of_fit,
    rest=expression_lib.silence_rank(passage, opening, predict, head),
  )


def correlations(
  opening: Float[np.ndarray, "k"],
  true: Float[np.ndarray, "k"],
  kept: Bool[np.ndarray, "k"],
) -> dict[int, float]:
  """Computes how lips follow by every shift of sound that is looked at.

  Args:
    opening: predicted.
    true: fitted.
    kept: ticks that are measured.
  """
  return {
    shift: _correlation(opening, true, kept, shift)
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)
  }


def _speech(waveform: Float[np.ndarray, "n"]) -> tuple[int, int]:
  """Returns the ticks of the first sound and after the last one."""
  power = np.square(waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP))
  power = power.mean(1)
  loud = np.flatnonzero(power > _QUIET * np.percentile(power, 95))
  return int(loud[0]), int(loud[-1]) + 1


def _rolled(waveform, first: int, last: int, samples) -> np.ndarray:
  """Moves speech circularly within its ticks [first, last)."""
  rolled = waveform.copy()
  inside = slice(first * HOP, last * HOP)
  rolled[inside] = np.roll(waveform[inside], samples)
  return rolled


def _moved(values: np.ndarray, shift: int) -> np.ndarray:
  """Returns what was predicted `shift` ticks later, ends repeated."""
  place = np.clip(np.arange(len(values)) + shift, 0, len(values) - 1)
  return values[place]


def _correlation(predicted, target, kept, shift) -> float:
  return lips.correlation(_moved(predicted, shift)[kept], target[kept])


def interval(
  rows: Sequence[Row], figure: Callable[[Row], float]
) -> tuple[float, float, float]:
  """Returns a figure's mean over speakers, and its 95 % bootstrap interval.

  A speaker counts once, however many clips there are.
  """
  speakers: dict[str, list[float]] = {}
  for row in rows:
    speakers.setdefault(row.speaker, []).append(figure(row))
  values = np.array([np.mean(each) for each in speakers.values()])
  low, high = np.percentile(_resampled_means(values), _PERCENT)
  return float(values.mean()), float(low), float(high)


def closure(rows: Sequence[Row]) -> tuple[float, float]:
  """Returns opening at open vowels over that at /p b m/: ours, the fit's.

  Openings are averaged before they are divided: a clip alone has few of these
  sounds, and lips that close well divide by nearly nothing.
  """
  kept = [
    row for row in rows if np.isfinite((row.sounds, row.sounds_of_fit)).all()
  ]
  if not kept:
    return math.nan, math.nan
  ours, fitted = (
    _ratio(*np.mean([getattr(row, name) for row in kept], axis=0))
    for name in ("sounds", "sounds_of_fit")
  )
  return ours, fitted


def _ratio(vowels: float, closures: float) -> float:
  return vowels / closures if closures > 0 else math.nan


def _resampled_means(values: Float[np.ndarray, "v"]) -> Float[np.ndarray, "r"]:
  random = np.random.default_rng(0)
  chosen = random.integers(len(values), size=(_NUM_RESAMPLES, len(values)))
  return values[chosen].mean(1)


def as_text(rows: Sequence[Row], groups: dict[str, list[Row]]) -> str:
  """Formats a line a clip, then the means of groups of clips.

  Args:
    rows: in the order of the lines.
    groups: by their names.
  """
  heads = (
    "s",
    "shift",
    "r as is",
    "r",
    "shuffled",
    "LMD px",
    "of mean",
    "gain",
    "closure",
    "of fit",
    "pauses",
  )
  lines = [f"{'':32}" + "".join(f"{name:>10}" for name in heads)]
  for row in rows:
    cells = (
      f"{row.seconds:.0f}",
      f"{row.shift}",
      f"{row.in_place:.2f}",
      f"{row.correlation:.2f}",
      f"{row.shuffled:.2f}",
      f"{row.distance:.2f}",
      f"{row.of_mean:.2f}",
      f"{row.gain:.0%}",
      f"{_ratio(*row.sounds):.1f}",
      f"{_ratio(*row.sounds_of_fit):.1f}",
      f"{row.rest:.2f}",
    )
    lines.append(f"{row.source:32.32}" + "".join(f"{x:>10}" for x in cells))
  for name, group in groups.items():
    if not group:
      continue
    parts = []
    for head, figure in (
      ("r", lambda row: row.correlation),
      ("shuffled", lambda row: row.shuffled),
      ("gain", lambda row: row.gain),
      ("pauses", lambda row: row.rest),
    ):
      mean, low, high = interval(group, figure)
      parts.append(f"{head} {mean:.2f} ({low:.2f} to {high:.2f})")
    ours, fitted = closure(group)
    parts.append(f"closure {ours:.1f} of the fit's {fitted:.1f}")
    count = len({row.speaker for row in group})
    lines.append(f"{name}, {count} speakers: " + ", ".join(parts))
  return "\n".join(lines)


def shift_of(row: Row, least: float) -> int | None:
  """Returns a clip's shift; None where lips do not follow sound well enough."""
  if math.isnan(row.correlation) or row.correlation < least:
    return None
  return row.shift
