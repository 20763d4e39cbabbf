"""The time shift of a clip's sound against its video.

Loudness does not determine it: in synchronised clips its correlation with the
lips is 0.2 and less. Phones do: the lips meet for /p b m/, nearly so for /f v/,
and part for open vowels. Each recognised phone has an expected opening; the
estimate is the shift at which the lips correlate best with the expected ones.

t frames, p phones, l lags, b resamplings.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# How open the lips are expected to be, -1 closed to 1 wide, by ARPAbet name.
# Set from phonetics, not fitted to any clip. A phone not listed here (/r l k/)
# takes its opening from its neighbours and is ignored.
# fmt: off
OPENNESS = {
  "P": -1.0, "B": -1.0, "M": -1.0,
  "F": -0.6, "V": -0.6, "W": -0.4,
  "UW": -0.3, "S": -0.3, "Z": -0.3, "SH": -0.3, "CH": -0.3, "JH": -0.3,
  "UH": -0.1, "T": -0.1, "D": -0.1, "N": -0.1, "TH": -0.1,
  "IY": 0.1, "IH": 0.2, "ER": 0.2, "HH": 0.2, "OY": 0.3, "OW": 0.3,
  "EY": 0.5, "AH": 0.5, "EH": 0.6, "AO": 0.7, "AW": 0.9,
  "AA": 1.0, "AE": 1.0, "AY": 1.0,
}
# fmt: on
CLOSURES = ("P", "B", "M")
OPEN = tuple(name for name, openness in OPENNESS.items() if openness >= 0.7)
# Lips are ahead of the middle of the phone that they shape: 0.10, 0.12 and
# 0.13 s in three synchronised clips of three people (25, 25, 12 frames a
# second), with the phones and the grid used here.
LEAD = 0.11
LEAD_UNCERTAINTY = 0.02
WIDEST = 15.0  # Largest shift, in seconds, that estimates chance.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Thresholds of the evidence; all ours.

  Attributes:
    max_shift: largest shift that is searched, seconds either way.
    grid: between the shifts that are tried, seconds.
    smallest: fewest phones for an estimate.
    closures: fewest /p b m/ among them.
    evidence: least height of the peak, in standard deviations of the
      correlation over many shifts, right and wrong.
    agreement: share of the resamplings that must have the same peak.
    tolerance: largest distance of the same peak, seconds.
    uncertainty: largest standard error of an estimate, seconds.
    closed: highest mean rank of the lips' opening at /p b m/, among all frames,
      -1 the most closed to 1 the widest.
    block: length of the resampled blocks, seconds: errors of neighbouring
      phones are correlated.
    num_resamplings: of the bootstrap.
  """

  max_shift: float = 0.6
  grid: float = 0.01
  smallest: int = 40
  closures: int = 3
  evidence: float = 3.3
  agreement: float = 0.85
  tolerance: float = 0.1
  uncertainty: float = 0.05
  closed: float = -0.1
  block: float = 0.5
  num_resamplings: int = 200


class Shift(NamedTuple):
  """An estimate of the shift of the sound.

  Attributes:
    seconds: delay of the sound against the video; below zero it is early.
      None is unknown.
    uncertainty: standard error, None with it.
    reason: why it is unknown, in words; empty where it is known.
    num_phones: phones at times at which the lips are visible.
    num_closures: /p b m/ among them.
    evidence: see `Config.evidence`; 0 where it could not be computed.
    agreement: see `Config.agreement`.
    closed: see `Config.closed`; 0 where it could not be computed.
    lags: shifts that were tried, seconds.
    correlation: of the lips with the expected openings, at each.
  """

  seconds: float | None
  uncertainty: float | None
  reason: str
  num_phones: int = 0
  num_closures: int = 0
  evidence: float = 0.0
  agreement: float = 0.0
  closed: float = 0.0
  lags: tuple[float, ...] = ()
  correlation: tuple[float, ...] = ()


def unknown(reason: str) -> Shift:
  """Returns an unknown shift with its reason."""
  return Shift(None, None, reason)


def estimate(
  times: Float[np.ndarray, "t"],
  opening: Float[np.ndarray, "t"],
  names: Sequence[str],
  middle: Float[np.ndarray, "p"],
  *,
  config: Config | None = None,
) -> Shift:
  """Estimates the shift of the sound, or why it is unknown.

  Args:
    times: of the frames, seconds, increasing.
    opening: of the lips in them, any unit; NaN where no face is visible.
    names: ARPAbet names of the phones, without stress; others are left out.
    middle: of each phone, seconds in the same time as the frames.
    config: thresholds of the evidence.
  """
  config = config or Config()
  kept = np.array([name in OPENNESS for name in names], bool)
  wanted = np.array([OPENNESS.get(name, 0.0) for name in names])[kept]
  middle = middle[kept]
  visible = np.isfinite(opening)
  if np.count_nonzero(visible) < 2 or not len(middle):
    return unknown(
      "no speech was recognised while the face is in the picture."
      if visible.any()
      else "the lips are not visible."
    )
  inside = _visible_at(times, visible, middle - LEAD)
  closed = np.isin(np.array(names)[kept], CLOSURES)
  wanted, middle, closed = wanted[inside], middle[inside], closed[inside]
  num_phones, num_closures = len(wanted), int(closed.sum())
  if num_phones < config.smallest or num_closures < config.closures:
    return unknown(
      f"too little speech was recognised while the face is in the picture: "
      f"{num_phones} sounds, {num_closures} of them /p b m/."
    )._replace(num_phones=num_phones, num_closures=num_closures)
  if np.ptp(opening[visible]) == 0:
    return unknown("the lips do not move.")._replace(
      num_phones=num_phones, num_closures=num_closures
    )
  # A circular shift keeps the rhythm of the speech: shifts that cannot be right
  # estimate chance.
  period = times[-1] + np.median(np.diff(times)) - times[0]
  half = min(period / 2, WIDEST)
  lags = np.arange(-half, half, config.grid)
  value = np.interp(
    middle + lags[:, None],
    times[visible],
    _ranks(opening[visible]),
    period=period,
  )
  return _peak(wanted, value, lags, middle, closed, config)._replace(
    num_phones=num_phones, num_closures=num_closures
  )


def openings_of_sounds(
  times: Float[np.ndarray, "t"],
  opening: Float[np.ndarray, "t"],
  names: Sequence[str],
  middle: Float[np.ndarray, "p"],
) -> tuple[float, float]:
  """Measures how open lips are at open vowels, and at /p b m/.

  Each phone takes the frame nearest to LEAD before its middle. Lips pressed
  together, below zero, count as closed.

  Args:
    times: of the frames, seconds, increasing.
    opening: of the lips in them; NaN where no face is visible.
    names: ARPAbet names of the phones, without stress.
    middle: of each phone, seconds in the same time as the frames.

  Returns:
    Two means; NaN where there is no such sound.
  """
  at = middle - LEAD
  nearest = np.abs(times[:, None] - at).argmin(0)
  value = np.maximum(opening[nearest], 0.0)
  inside = (at > times[0]) & (at < times[-1]) & np.isfinite(value)
  kinds = (np.isin(np.array(names), kind) & inside for kind in (OPEN, CLOSURES))
  vowels, closures = (
    float(value[kind].mean()) if kind.any() else float("nan") for kind in kinds
  )
  return vowels, closures


def _peak(wanted, value, lags, middle, closed, config: Config) -> Shift:
  """Returns the peak among the lags, unless the evidence is too weak."""
  once = np.ones((1, len(wanted)))
  correlation = _correlation(once, wanted, value)[0]
  shift = -(lags + LEAD)
  near = np.abs(shift) <= config.max_shift + config.grid / 2
  best = int(np.flatnonzero(near)[correlation[near].argmax()])
  apart = np.abs(lags - lags[best])
  rest = correlation[np.minimum(apart, np.ptp(lags) - apart) > 0.3]
  evidence = 0.0
  if len(rest) and rest.std() > 0:
    evidence = float((correlation[best] - rest.mean()) / rest.std())
  picks = shift[near][
    _correlation(_resampled(middle, config), wanted, value[near]).argmax(1)
  ]
  same = np.abs(picks - shift[best]) <= config.tolerance
  agreement = float(same.mean())
  spread = float(np.sqrt(np.mean(np.square(picks[same] - shift[best]))))
  error = float(np.hypot(spread, LEAD_UNCERTAINTY))
  rank = float(value[best, closed].mean())
  reason = ""
  if evidence < config.evidence:
    reason = (
      "the lips follow these words at no shift better than by chance "
      "(another speaker's sound, a voice-over, or too little speech)."
    )
  elif rank > config.closed:
    reason = "the lips do not close for /p b m/ at any shift."
  elif agreement < config.agreement or error > config.uncertainty:
    reason = "parts of the speech disagree about the shift."
  elif config.max_shift - abs(shift[best]) < config.grid:
    reason = f"it would be beyond {config.max_shift:g} s, the largest searched."
  order = np.argsort(shift[near])
  return Shift(
    None if reason else float(shift[best]),
    None if reason else error,
    reason,
    evidence=evidence,
    agreement=agreement,
    closed=rank,
    lags=tuple(float(v) for v in shift[near][order]),
    correlation=tuple(float(v) for v in correlation[near][order]),
  )


def _correlation(
  count: Float[np.ndarray, "b p"],
  wanted: Float[np.ndarray, "p"],
  value: Float[np.ndarray, "l p"],
) -> Float[np.ndarray, "b l"]:
  """Computes Pearson's over phones, weighted by count; 0 for a constant."""
  total = np.maximum(count.sum(1, keepdims=True), 1.0)
  mean_wanted = (count @ wanted)[:, None] / total
  mean = count @ value.T / total
  covariance = (count * wanted) @ value.T / total - mean_wanted * mean
  variance = count @ np.square(value).T / total - np.square(mean)
  spread = (count @ np.square(wanted))[:, None] / total - mean_wanted**2
  scale = np.sqrt(np.maximum(variance * spread, 0))
  return np.where(scale > 1e-9, covariance / np.maximum(scale, 1e-9), 0.0)


def _resampled(
  middle: Float[np.ndarray, "p"], config: Config
) -> Float[np.ndarray, "b p"]:
  """Counts each phone in bootstrap samples of blocks of time."""
  _, block = np.unique(np.floor(middle / config.block), return_inverse=True)
  num_blocks = int(block.max()) + 1
  rng = np.random.default_rng(0)
  share = np.full(num_blocks, 1 / num_blocks)
  count = rng.multinomial(num_blocks, share, size=config.num_resamplings)
  return count[:, block].astype(np.float64)


def _ranks(values: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
  """Ranks the values in [-1, 1]: one wide yawn does not outweigh speech."""
  _, place, count = np.unique(values, return_inverse=True, return_counts=True)
  middle = np.cumsum(count) - (count + 1) / 2
  return 2 * middle[place] / max(len(values) - 1, 1) - 1


def _visible_at(
  times: Float[np.ndarray, "t"],
  visible: Bool[np.ndarray, "t"],
  at: Float[np.ndarray, "p"],
) -> Bool[np.ndarray, "p"]:
  """Returns whether the face is visible at some times."""
  known = times[visible]
  after = np.searchsorted(known, at).clip(1, len(known) - 1)
  nearest = np.minimum(np.abs(at - known[after - 1]), np.abs(known[after] - at))
  return nearest <= max(0.1, float(np.median(np.diff(times))))
