"""What every test runs under: checked shapes, eight devices, exact matmuls."""

import atexit
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Tests compile far more than they run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# XLA's older emitters compile in two thirds of the time.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8"
  + " --xla_cpu_use_fusion_emitters=false"
  * (os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
)

# Where in our code an operation is from: tests have no use for it, and it takes
# a tenth of their time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Programs are shared by the workers, the commands that tests start, and the
# next run.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parents[1] / ".pytest_cache/xla"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# A track that an earlier version left would hide a fault of this one.
os.environ["PIR_JAX_KEEP"] = ""

# The user's own signing key is none of the tests' business.
os.environ["PIR_JAX_KEYS"] = tempfile.mkdtemp(prefix="pir_jax-keys-")

import jax
import jaxtyping
import pytest

atexit.register(shutil.rmtree, os.environ["PIR_JAX_KEYS"], ignore_errors=True)

jaxtyping.install_import_hook("pir_jax", "beartype.beartype")

jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(params=[0.0, 1e-40, 1e4, -1e4])
def extreme(request):
  """Values at which functions must be finite; 1e-40 is denormal in float32."""
  return request.param


@pytest.fixture(scope="session")
def run_command(tmp_path_factory):
  """Runs a command as a user does: a function of its module and arguments.

  Returns its exit code, and the lines of its output and of its errors without
  those of libraries' logs.
  """
  root = pathlib.Path(__file__).parents[1]
  folder = tmp_path_factory.mktemp("commands")
  server = subprocess.Popen(
    [sys.executable, root / "tests/command_server.py"],
    cwd=root,
    env={**os.environ, "XLA_FLAGS": ""},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def run(module, *arguments, **environment):
    outputs = folder / "output.txt", folder / "errors.txt"
    for path in outputs:
      path.unlink(missing_ok=True)
    request = f"pir_jax.{module}", [*map(str, arguments)], environment
    server.stdin.write(json.dumps([*request, *map(str, outputs)]) + "\n")
    server.stdin.flush()
    code = int(server.stdout.readline())
    output, errors = (path.read_text().splitlines() for path in outputs)
    logs = ("INFO", "WARNING", "I0", "W0")
    return code, output, [s for s in errors if s and not s.startswith(logs)]

  yield run
  server.stdin.close()
  server.wait()


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
  """Programs are let go after each file: thousands slow the collector down."""
  yield
  jax.clear_caches()
