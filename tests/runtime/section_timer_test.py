"""Sections are timed, the first call of each apart."""

import pytest

from pir_jax.runtime import section_timer


def test_the_first_call_does_not_count_for_a_frame():
  timer = section_timer.SectionTimer()
  timer.add("render", 10.0, 8)
  timer.add("fit", 2.0, 100)
  timer.add("render", 0.4, 8)
  timer.add("render", 0.2, 4)
  lines = timer.table().splitlines()
  # 0.6 s for 12 frames, and 2 s for 100 where there is but one call.
  assert lines[1].split() == "render 10.00 s 50.0 ms 10.60 s".split()
  assert lines[2].split() == "fit 2.00 s 20.0 ms 2.00 s".split()
  assert lines[3].split() == "together 70.0 ms 12.60 s".split()
  assert len({len(line) for line in lines}) == 1


def test_what_raises_is_not_counted():
  timer = section_timer.SectionTimer()
  with pytest.raises(KeyError), timer.measure("render"):
    raise KeyError
  assert not timer.spans
  with timer.measure("render", 3):
    pass
  assert timer.spans["render"][0].frames == 3
  assert 0 <= timer.spans["render"][0].seconds < 1
