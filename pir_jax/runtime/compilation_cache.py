"""Keeps compiled programs, so that the second start of a step is quick.

They lie in the cache folder, apart for each kind of machine: code for one CPU
may hold instructions that another lacks. JAX's own key holds its version, the
program and its options; what was used longest ago goes when they grow.
"""

import hashlib
import pathlib
import platform
import shutil

import jax

from pir_jax import assets

_MAX_BYTES = 2 * 2**30
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def keep() -> None:
  """Turns JAX's cache on for this process."""
  folder = root() / machine()
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def root() -> pathlib.Path:
  """Returns the folder with the programs of every machine."""
  return assets.cache_directory() / "compilations"


def machine() -> str:
  """Names this machine's kind: its architecture and a digest of its CPU."""
  features = platform.processor()
  if _CPU_INFO.exists():  # Linux: what the CPU can do, and not how fast now.
    lines = _CPU_INFO.read_text().splitlines()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    features = "\n".join(
      sorted({line for line in lines if line.startswith(wanted)})
    )
  digest = hashlib.sha256(features.encode()).hexdigest()[:12]
  return f"{platform.machine() or 'unknown'}-{digest}"


def size() -> tuple[int, int]:
  """Returns how many programs are kept, and their bytes."""
  files = [path for path in root().glob("*/*-cache") if path.is_file()]
  return len(files), sum(path.stat().st_size for path in files)


def clear() -> None:
  """Deletes the programs of every machine."""
  if root().exists():
    shutil.rmtree(root())
