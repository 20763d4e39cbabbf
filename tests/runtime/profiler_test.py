"""What is asked of a profile."""

import pytest

from pir_jax.runtime import profiler
from pir_jax.types import InputError


def test_first_step_and_number_of_steps():
  assert profiler.parse("20:5") == (20, 5)
  assert profiler.parse(None) is None


@pytest.mark.parametrize(
  "text", ["20", "20:", ":5", "0:5", "20:0", "a:b", "-1:5", "1:2:3", "1.5:2"]
)
def test_anything_else_is_a_sentence(text):
  with pytest.raises(InputError, match=f"--profile={text} is not START:STEPS"):
    profiler.parse(text)


def test_only_the_first_process_records(tmp_path, monkeypatch):
  monkeypatch.setattr(profiler.jax, "process_index", lambda: 1)
  with profiler.Trace((1, 1), tmp_path, range(1, 3)) as trace:
    with trace.step(1):
      pass
    assert not trace.ends(1)
  assert not list(tmp_path.iterdir())


def test_every_process_refuses_what_one_refuses(tmp_path, monkeypatch):
  monkeypatch.setattr(profiler.jax, "process_index", lambda: 1)
  with pytest.raises(InputError, match="the run goes from step 3 to 4"):
    profiler.Trace((1, 1), tmp_path, range(3, 5))
