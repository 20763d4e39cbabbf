"""Compiled programs are kept, by machine, and can be thrown away."""

import jax
import jax.numpy as jnp
import pytest

from pir_jax.runtime import compilation_cache


@pytest.fixture
def place(monkeypatch, tmp_path):
  monkeypatch.setenv("PIR_JAX_CACHE", str(tmp_path))
  names = (
    *("jax_compilation_cache_dir", "jax_compilation_cache_max_size"),
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: jax.config.values[name] for name in names}
  yield tmp_path
  for name, value in before.items():
    jax.config.update(name, value)
  jax.experimental.compilation_cache.compilation_cache.reset_cache()


def test_a_program_is_kept_for_this_machine(place):
  compilation_cache.keep()
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  jax.jit(lambda x: jnp.cos(x) + 3.25)(jnp.ones(7)).block_until_ready()
  count, size = compilation_cache.size()
  assert count >= 1 and size > 0
  (folder,) = (place / "compilations").iterdir()
  assert folder.name == compilation_cache.machine()


@pytest.mark.parametrize(
  "line, other",
  [("flags\t: sse4 avx512f\n", True), ("cpu MHz\t: 2100.0\n", False)],
)
def test_another_cpu_is_another_machine(line, other, monkeypatch, tmp_path):
  info = "model name\t: A CPU\ncpu MHz\t: 2500.0\nflags\t: sse4\n"
  path = tmp_path / "cpuinfo"
  path.write_text(info)
  monkeypatch.setattr(compilation_cache, "_CPU_INFO", path)
  name = compilation_cache.machine()
  path.write_text(info + line)
  assert (compilation_cache.machine() != name) is other


def test_programs_are_shown_and_cleared_and_nothing_else(run_command, tmp_path):
  place = {"PIR_JAX_CACHE": str(tmp_path)}
  folder = tmp_path / "compilations" / "a machine"
  folder.mkdir(parents=True)
  (folder / "jit_step-cache").write_bytes(bytes(2**21))
  (folder / "jit_step-atime").write_bytes(bytes(8))
  (tmp_path / "assets").mkdir()
  code, (line,), errors = run_command("cache", **place)
  assert code == 0, errors
  assert line.startswith("1 compiled programs kept, 2 MiB")
  assert str(tmp_path) in line
  code, (line,), errors = run_command("cache", "--clear", **place)
  assert code == 0 and "deleted" in line, errors
  assert [path.name for path in tmp_path.iterdir()] == ["assets"]
