"""Can the mouth be read off what the network is given? A linear probe.

Ridge regression from pictures to the lips' opening, trained on the beginning of
a clip and scored on its tail. The measure is chance: the same probe trained on
openings shifted in time against the pictures (circularly, so that each series
keeps its own smoothness, which alone makes two slow series correlate) and
scored against the true ones. A control belongs to it: a probe that cannot read
lips off the whole picture proves nothing about the masked one.

t frames, n training frames, q frames predicted, p numbers of a picture,
j shifts.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pir_jax.metrics import lips

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # Of the pictures' own variance.
NUM_FOLDS = 8  # Over the whole clip.
_INNER = 5  # Folds that choose the strength.
_GAP = 5  # Frames left out about a fold: they nearly repeat its own.
_MAX_SHIFTS = 60
_LEAST_SHIFT = 10  # Frames: 0.4 s.
_FEWEST = 4 * _LEAST_SHIFT


class Reading(NamedTuple):
  """How well a probe reads.

  Attributes:
    correlation: of the openings read with the true ones.
    r2: share of their variance explained; below 0 is worse than their mean.
    shuffled: mean correlation over the shifts.
    shuffled_95: their 95th percentile.
    num_frames: frames it is scored on.
  """

  correlation: float
  r2: float
  shuffled: float
  shuffled_95: float
  num_frames: int

  @property
  def leaks(self) -> bool:
    """Better than chance: above the 95th percentile of the shifts."""
    return self.correlation > self.shuffled_95


def tail(
  pictures: Float[np.ndarray, "t *p"],
  opening: Float[np.ndarray, "t"],
  num_train: int,
) -> Reading:
  """Trained on the first frames, read on the rest.

  Few frames in the tail make chance wide: look at `folds` as well.

  Raises:
    ValueError: too few frames to train on, or fewer than two to read.
  """
  _check(num_train, len(opening) - num_train)
  kernel = _kernel(pictures)
  train, rest = np.arange(num_train), np.arange(num_train, len(opening))
  targets = _shifted(opening[train].astype(np.float64))
  return _score(_read(kernel, train, rest, targets), opening[rest])


def folds(
  pictures: Float[np.ndarray, "t *p"],
  opening: Float[np.ndarray, "t"],
  num_folds: int = NUM_FOLDS,
) -> Reading:
  """Every part of a clip read by a probe trained on all others.

  All frames are scored, so chance is narrower. The parts are contiguous, with
  a gap about each. For chance the whole series is shifted.

  Raises:
    ValueError: too few frames.
  """
  num = len(opening)
  _check(num - num // num_folds - 2 * _GAP, num // num_folds)
  kernel = _kernel(pictures)
  targets = _shifted(opening.astype(np.float64))
  result = np.zeros_like(targets)
  for part, others in _parts(num, num_folds):
    result[part] = _read(kernel, others, part, targets[others])
  # A shift's prediction is chance about the true series, not about its own.
  return _score(result, opening)


def _check(num_train: int, num_read: int) -> None:
  if num_train < _FEWEST or num_read < 2:
    raise ValueError(
      f"{num_train} frames to train on and {num_read} to read are too few for "
      f"a probe: give {_FEWEST} and 2 at least"
    )


def _kernel(pictures) -> Float[np.ndarray, "t t"]:
  """Products of all pictures; centred once for better rounding."""
  flat = pictures.reshape(len(pictures), -1).astype(np.float32)
  flat = flat - flat.mean(0)
  return (flat @ flat.T).astype(np.float64)


def _shifted(opening: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n j"]:
  """The series itself, and behind it its circular shifts."""
  shifts = range(_LEAST_SHIFT, len(opening) - _LEAST_SHIFT + 1)
  most = min(len(shifts), _MAX_SHIFTS)
  places = np.linspace(0, len(shifts) - 1, most).round().astype(int)
  columns = [opening] + [np.roll(opening, shifts[int(i)]) for i in places]
  return np.stack(columns, 1)


def _parts(num: int, num_parts: int):
  """Yields (a contiguous part, what is left without a gap about it)."""
  edges = np.linspace(0, num, num_parts + 1).astype(int)
  everything = np.arange(num)
  for start, stop in zip(edges[:-1], edges[1:], strict=True):
    near = (everything >= start - _GAP) & (everything < stop + _GAP)
    yield everything[start:stop], everything[~near]


def _read(
  kernel: Float[np.ndarray, "t t"],
  train: Int[np.ndarray, "n"],
  wanted: Int[np.ndarray, "q"],
  targets: Float[np.ndarray, "n j"],
) -> Float[np.ndarray, "q j"]:
  """Predictions; each column's strength is the one that serves it best.

  Judged inside the training part, in contiguous folds: what is read must not
  choose how.
  """
  error = np.zeros((len(STRENGTHS), targets.shape[1]))
  for part, others in _parts(len(train), _INNER):
    found = _ridge(kernel, train[others], train[part], targets[others])
    error += np.square(found - targets[part]).sum(1)
  best = error.argmin(0)
  found = _ridge(kernel, train, wanted, targets)
  return found[best, :, np.arange(targets.shape[1])].T


def _ridge(
  kernel: Float[np.ndarray, "t t"],
  train: Int[np.ndarray, "n"],
  wanted: Int[np.ndarray, "q"],
  targets: Float[np.ndarray, "n j"],
) -> Float[np.ndarray, "s q j"]:
  """Kernel ridge with a constant, for every strength s."""
  inner = kernel[np.ix_(train, train)]
  outer = kernel[np.ix_(wanted, train)]
  # Centred on the training pictures, whatever the kernel was centred on.
  outer = outer - outer.mean(1, keepdims=True) - inner.mean(0) + inner.mean()
  inner = inner - inner.mean(0) - inner.mean(1, keepdims=True) + inner.mean()
  values, vectors = np.linalg.eigh(inner)
  values = np.maximum(values, 0)
  mean = targets.mean(0)
  seen = vectors.T @ (targets - mean)
  outer = outer @ vectors
  # Where pictures do not differ at all, the mean is what is left to say.
  scale = values.mean() or 1.0
  return np.stack(
    [outer @ (seen / (values + s * scale)[:, None]) + mean for s in STRENGTHS]
  )


def _score(
  found: Float[np.ndarray, "q j"], truth: Float[np.ndarray, "q"]
) -> Reading:
  """The first column is the probe, the others are chance."""
  truth = truth.astype(np.float64)
  r = np.array([lips.correlation(column, truth) for column in found.T])
  spread = np.square(truth - truth.mean()).sum()
  error = np.square(truth - found[:, 0]).sum()
  return Reading(
    correlation=float(r[0]),
    r2=float(1 - error / spread) if spread > 0 else 0.0,
    shuffled=float(r[1:].mean()),
    shuffled_95=float(np.quantile(r[1:], 0.95)),
    num_frames=len(truth),
  )
