"""Long work says how far it is, on a terminal and in a pipe."""

import pytest

from pir_jax.runtime import progress


@pytest.fixture
def clock(monkeypatch):
  """A second passes with every look at the clock."""
  seconds = iter(range(1000))
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))


def test_a_pipe_gets_a_line_now_and_then(clock, capsys):
  assert list(progress.track(range(12), "tracking", 12)) == list(range(12))
  lines = capsys.readouterr().out.splitlines()
  assert lines == [
    "tracking: 5 of 12 frames, 5 s",
    "tracking: 10 of 12 frames, 10 s",
  ]


def test_more_than_was_thought_is_no_nonsense(clock, capsys):
  assert len(list(progress.track(range(6), "tracking", 3))) == 6
  assert capsys.readouterr().out == "tracking: 5 of 5 frames, 5 s\n"


def test_a_worker_is_silent(clock, capsys, monkeypatch):
  monkeypatch.setattr(progress, "SHOWN", False)
  assert len(list(progress.track(range(12), "tracking", 12))) == 12
  progress.say("fitting")
  assert capsys.readouterr().out == ""
