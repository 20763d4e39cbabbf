"""Leakage of the mouth's opening into a network's inputs: a linear probe.

Ridge regression from images to the lips' opening, trained on the beginning of
a clip and scored on its tail. The baseline is chance: the same probe trained on
openings shifted in time against the images (circularly, so that each series
keeps its own smoothness, which alone makes two slow series correlate) and
scored against the unshifted ones. It needs a control: a probe that cannot read
lips off the whole image proves nothing about the masked one.

t frames, n training frames, q frames predicted, p values of an image,
j shifts.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pir_jax.metrics import lips

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # Of the images' own variance.
NUM_FOLDS = 8  # Over the whole clip.
_INNER = 5  # Folds that choose the strength.
_GAP = 5  # Frames left out about a fold: they nearly repeat its own.
_MAX_SHIFTS = 60
_LEAST_SHIFT = 10  # Frames: 0.4 s.
_FEWEST = 4 * _LEAST_SHIFT


class Reading(NamedTuple):
  """A probe's accuracy, and that of chance.

  Attributes:
    correlation: of the predicted openings with the target ones.
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
  """Trains a probe on the first frames and scores it on the rest.

  Few frames in the tail make chance wide: see `folds` as well.

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
  """Scores every part of a clip by a probe trained on all others.

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
  # A shifted probe is scored against the unshifted series.
  return _score(result, opening)


def _check(num_train: int, num_read: int) -> None:
  if num_train < _FEWEST or num_read < 2:
    raise ValueError(
      f"{num_train} frames to train on and {num_read} to read are too few for "
      f"a probe: give {_FEWEST} and 2 at least"
    )


def _kernel(pictures) -> Float[np.ndarray, "t t"]:
  """Computes the images' Gram matrix; centred once for better rounding."""
  flat = pictures.reshape(len(pictures), -1).astype(np.float32)
  flat = flat - flat.mean(0)
  return (flat @ flat.T).astype(np.float64)


def _shifted(opening: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n j"]:
  """Returns the series itself, followed by its circular shifts."""
  shifts = range(_LEAST_SHIFT, len(opening) - _LEAST_SHIFT + 1)
  most = min(len(shifts), _MAX_SHIFTS)
  places = np.linspace(0, len(shifts) - 1, most).round().astype(int)
  columns = [opening] + [np.roll(opening, shifts[int(i)]) for i in places]
  return np.stack(columns, 1)


def _parts(num: int, num_parts: int):
  """Yields (a contiguous part, all other frames without a gap about it)."""
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
  """Predicts each column with its best ridge strength.

  The strength is cross-validated inside the training part, in contiguous
  folds, never on the frames that are predicted.
  """
  error = np.zeros((len(STRENGTHS), targets.shape[1]))
  for part, others in _parts(len(train), _INNER):
    predicted = _ridge(kernel, train[others], train[part], targets[others])
    error += np.square(predicted - targets[part]).sum(1)
  best = error.argmin(0)
  predicted = _ridge(kernel, train, wanted, targets)
  return predicted[best, :, np.arange(targets.shape[1])].T


def _ridge(
  kernel: Float[np.ndarray, "t t"],
  train: Int[np.ndarray, "n"],
  wanted: Int[np.ndarray, "q"],
  targets: Float[np.ndarray, "n j"],
) -> Float[np.ndarray, "s q j"]:
  """Solves kernel ridge regression with an intercept, for every strength s."""
  inner = kernel[np.ix_(train, train)]
  outer = kernel[np.ix_(wanted, train)]
  # Centred on the training images, whatever the kernel was centred on.
  outer = outer - outer.mean(1, keepdims=True) - inner.mean(0) + inner.mean()
  inner = inner - inner.mean(0) - inner.mean(1, keepdims=True) + inner.mean()
  values, vectors = np.linalg.eigh(inner)
  values = np.maximum(values, 0)
  mean = targets.mean(0)
  projected = vectors.T @ (targets - mean)
  outer = outer @ vectors
  # Equal images predict the mean.
  scale = values.mean() or 1.0
  return np.stack(
    [
      outer @ (projected / (values + s * scale)[:, None]) + mean
      for s in STRENGTHS
    ]
  )


def _score(
  predicted: Float[np.ndarray, "q j"], target: Float[np.ndarray, "q"]
) -> Reading:
  """Scores the first column as the probe, the others as chance."""
  target = target.astype(np.float64)
  r = np.array([lips.correlation(column, target) for column in predicted.T])
  spread = np.square(target - target.mean()).sum()
  error = np.square(target - predicted[:, 0]).sum()
  return Reading(
    correlation=float(r[0]),
    r2=float(1 - error / spread) if spread > 0 else 0.0,
    shuffled=float(r[1:].mean()),
    shuffled_95=float(np.quantile(r[1:], 0.95)),
    num_frames=len(target),
  )
