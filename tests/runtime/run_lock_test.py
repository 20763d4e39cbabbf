import pytest

from pir_jax.runtime import run_lock
from pir_jax.types import InputError


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
  with run_lock.held(tmp_path / "run"):
    with (
      pytest.raises(InputError, match="being trained by another process"),
      run_lock.held(tmp_path / "run"),
    ):
      pass
  with run_lock.held(tmp_path / "run"):
    pass
