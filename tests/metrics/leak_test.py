"""A probe reads what pictures tell of the lips, and nothing where they do not.

Pictures here are noise of their own and, where they leak, a spot as bright as
the mouth is open.
"""

import numpy as np
import pytest
from scipy import ndimage

from pir_jax.metrics import leak

NUM, TRAIN = 120, 90


def slow(rng, *shape):
  """Smooth series, as faces and heads move."""
  values = ndimage.gaussian_filter1d(rng.normal(size=shape), 4, axis=0)
  return values / values.std(0)


@pytest.fixture
def opening():
  return slow(np.random.default_rng(0), NUM)


@pytest.fixture
def pictures():
  return heads(1)


def heads(seed):
  """They move slowly and know nothing of the mouth."""
  rng = np.random.default_rng(seed)
  modes = rng.normal(size=(6, 8 * 8 * 3))
  return (slow(rng, NUM, 6) @ modes).reshape(NUM, 8, 8, 3)


def readings(pictures, opening):
  return leak.tail(pictures, opening, TRAIN), leak.folds(pictures, opening)


def test_open_lips_are_read(pictures, opening):
  pictures[:, 5, 4] += opening[:, None]
  for found in readings(pictures, opening):
    assert found.leaks
    assert found.correlation > 0.95 and found.r2 > 0.9
    assert abs(found.shuffled) < 0.3


def test_hidden_lips_are_not(opening):
  found = [leak.tail(heads(seed), opening, TRAIN) for seed in range(10, 22)]
  # One in twenty is above the 95th percentile by chance: of 12, four are so in
  # two cases of a thousand.
  assert sum(x.leaks for x in found) < 4
  assert np.median([x.r2 for x in found]) < 0


def test_pictures_that_never_change_tell_nothing(opening):
  for found in readings(np.full((NUM, 4, 4, 3), 0.5), opening):
    assert not found.leaks
    assert found.correlation <= found.shuffled_95


def test_chance_is_wide_for_slow_series(pictures, opening):
  """Shuffling frames one by one would call slow heads a leak."""
  _, found = readings(pictures, opening)
  # Of that many independent frames the 95th percentile is 1.64 / sqrt(NUM).
  assert found.shuffled_95 > 1.5 * 1.64 / NUM**0.5


def test_strength_is_chosen_without_the_tail(pictures, opening):
  """What is read cannot depend on the true openings of what is read."""
  pictures[:, 5, 4] += opening[:, None]
  kernel = leak._kernel(pictures)
  train, rest = np.arange(TRAIN), np.arange(TRAIN, NUM)
  targets = leak._shifted(opening[train])
  found = leak._read(kernel, train, rest, targets)
  other = leak._read(kernel[: NUM - 20, : NUM - 20], train, rest[:-20], targets)
  np.testing.assert_allclose(found[:-20], other)


def test_kernel_ridge_is_ridge(pictures, opening):
  train, rest = np.arange(TRAIN), np.arange(TRAIN, NUM)
  flat = pictures.reshape(NUM, -1)
  found = leak._ridge(flat @ flat.T, train, rest, opening[train, None])
  x = flat[train] - flat[train].mean(0)
  y = opening[train] - opening[train].mean()
  for strength, row in zip(leak.STRENGTHS, found, strict=True):
    weight = strength * np.square(x).sum() / TRAIN
    inner = x.T @ x + weight * np.eye(x.shape[1])
    slope = np.linalg.solve(inner, x.T @ y)
    want = (flat[rest] - flat[train].mean(0)) @ slope + opening[train].mean()
    # Of 192 numbers six vary: the plain way is badly conditioned.
    np.testing.assert_allclose(row[:, 0], want, atol=1e-5)


def test_too_few_frames_are_refused():
  with pytest.raises(ValueError, match="too few"):
    leak.tail(np.zeros((30, 2)), np.zeros(30), 25)
  with pytest.raises(ValueError, match="too few"):
    leak.folds(np.zeros((30, 2)), np.zeros(30))
