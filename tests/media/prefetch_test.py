"""What is done ahead comes in order, whole, and with its errors."""

import threading

import pytest

from pir_jax.media import prefetch


def _broken(count):
  yield from range(count)
  raise ValueError("no more")


def test_items_come_in_order():
  assert list(prefetch.taken(range(50), depth=2)) == list(range(50))
  assert list(prefetch.taken([])) == []


def test_an_error_comes_in_its_place():
  seen = []
  with pytest.raises(ValueError, match="no more"):
    seen.extend(prefetch.taken(_broken(3)))
  seen = []
  with pytest.raises(ValueError, match="no more"):
    for item in prefetch.taken(_broken(3)):
      seen.append(item)
  assert seen == [0, 1, 2]


def test_no_more_is_made_than_may_wait():
  made = []

  def items():
    for index in range(1000):
      made.append(index)
      yield index

  taken = prefetch.taken(items(), depth=3)
  assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
  before = threading.active_count()
  taken.close()
  assert threading.active_count() < before
  # Five taken, three waiting, one in the hand.
  assert len(made) <= 9


def test_results_come_in_order_and_errors_too():
  assert list(prefetch.done(lambda x: x * x, range(30))) == [
    x * x for x in range(30)
  ]
  results = prefetch.done(lambda x: 1 / (2 - x), range(9))
  assert [next(results), next(results)] == [0.5, 1.0]
  with pytest.raises(ZeroDivisionError):
    next(results)
