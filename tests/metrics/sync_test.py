"""The shift of the sound, found from phones and lips that were made up."""

import numpy as np
import pytest

from pir_jax.metrics import sync

NAMES = sorted(sync.OPENNESS)
RATE = 25


def speech(seconds: float, seed: int):
  """Phones of 60 to 140 ms, every second one a vowel, as in speech."""
  rng = np.random.default_rng(seed)
  vowels = [name for name in NAMES if sync.OPENNESS[name] > 0]
  others = [name for name in NAMES if sync.OPENNESS[name] <= 0]
  ends = np.cumsum(rng.uniform(0.06, 0.14, int(seconds * 16)))
  ends = ends[ends < seconds]
  names = [
    str(rng.choice(vowels if i % 2 else others)) for i in range(len(ends))
  ]
  starts = np.append(0.0, ends[:-1])
  return names, (starts + ends) / 2


def lips(names, middle, seconds: float, noise: float = 0.6, seed: int = 0):
  """What a camera sees of them: ahead of the sound, sluggish and noisy."""
  times = np.arange(int(seconds * RATE)) / RATE
  wanted = np.array([sync.OPENNESS[name] for name in names])
  opening = np.interp(times, middle - sync.LEAD, wanted)
  rng = np.random.default_rng(1000 + seed)
  return times, opening + noise * rng.normal(size=len(times))


@pytest.mark.parametrize("shift", [-0.4, -0.13, 0.0, 0.25, 0.4])
def test_finds_the_shift_of_the_sound(shift):
  names, middle = speech(20, seed=1)
  times, opening = lips(names, middle, 20)
  found = sync.estimate(times, opening, names, middle + shift)
  # A frame lasts 40 ms; the estimate's own error is of half that.
  assert found.seconds == pytest.approx(shift, abs=0.03), found.reason
  assert 0 < found.uncertainty <= sync.Config().uncertainty
  assert found.lags[np.argmax(found.correlation)] == found.seconds


@pytest.mark.slow
def test_uncertainty_covers_the_error():
  """Nine in ten errors lie within two standard errors of the truth."""
  within = []
  for seed in range(14):
    names, middle = speech(15, seed)
    times, opening = lips(names, middle, 15, noise=0.9, seed=seed)
    found = sync.estimate(times, opening, names, middle + 0.1)
    if found.seconds is not None:
      within.append(abs(found.seconds - 0.1) <= 2 * found.uncertainty)
  assert len(within) >= 10
  assert np.mean(within) >= 0.9


def test_speech_of_another_is_unknown():
  """Of 12 clips with foreign sound, at most one is taken for in step."""
  known = 0
  for seed in range(12):
    names, middle = speech(12, seed)
    times, opening = lips(names, middle, 12, seed=seed)
    other, at = speech(12, 500 + seed)
    found = sync.estimate(times, opening, other, at)
    known += found.seconds is not None
    assert bool(found.reason) == (found.seconds is None)
  assert known <= 1


def test_only_the_order_of_openings_counts():
  names, middle = speech(12, seed=2)
  times, opening = lips(names, middle, 12)
  one = sync.estimate(times, opening, names, middle)
  other = sync.estimate(times, 50 * np.exp(opening), names, middle)
  assert one == other


def test_a_face_that_is_away_half_of_the_time():
  names, middle = speech(30, seed=3)
  times, opening = lips(names, middle, 30)
  opening[(times > 8) & (times < 22)] = np.nan
  found = sync.estimate(times, opening, names, middle - 0.2)
  assert found.seconds == pytest.approx(-0.2, abs=0.03)
  # Phones that no lips were seen with are no evidence.
  assert found.num_phones < 0.6 * len(names)


def test_phones_beyond_the_reach_are_not_clipped_into_it():
  names, middle = speech(20, seed=4)
  times, opening = lips(names, middle, 20)
  found = sync.estimate(times, opening, names, middle + 1.5)
  assert found.seconds is None


@pytest.mark.parametrize("kind", ["none", "few", "no lips", "still", "odd"])
def test_weak_evidence_is_told(kind):
  names, middle = speech(12, seed=5)
  times, opening = lips(names, middle, 12)
  if kind == "none":
    names, middle = [], middle[:0]
  elif kind == "few":
    names, middle = names[:30], middle[:30]
  elif kind == "no lips":
    opening[:] = np.nan
  elif kind == "still":
    opening[:] = 0.3
  else:
    names = ["SIL"] * len(names)
  found = sync.estimate(times, opening, names, middle)
  assert found.seconds is None and found.uncertainty is None
  assert found.reason.endswith(".")


def test_lips_that_never_close_are_no_evidence():
  """Vowels alone agree with any babble; /p b m/ decide."""
  names, middle = speech(30, seed=6)
  shut = np.isin(names, sync.CLOSURES)
  wanted = [*names]
  for place in np.flatnonzero(shut):
    wanted[place] = "AA"
  times, opening = lips(wanted, middle, 30, noise=0.3)
  found = sync.estimate(times, opening, names, middle)
  assert found.seconds is None


def test_openings_of_sounds_are_read_ahead_of_their_middles():
  times = np.arange(50) / 25
  opening = np.full(50, 2.0)
  opening[[10, 20]] = -1.0, 0.5  # Pressed together counts as closed.
  opening[30] = 8.0
  opening[40] = np.nan
  names = ("P", "M", "AA", "AE", "IY")
  middle = times[[10, 20, 30, 40, 5]] + sync.LEAD
  vowels, closures = sync.openings_of_sounds(times, opening, names, middle)
  assert (vowels, closures) == (8.0, 0.25)
  assert np.isnan(
    sync.openings_of_sounds(times, opening, (), np.zeros(0))
  ).all()
