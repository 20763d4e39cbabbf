"""What every test runs under: checked shapes, eight devices, exact matmuls."""

import os

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

# Tests compile far more than they run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("pir_jax", "beartype.beartype")

jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(params=[0.0, 1e-40, 1e4, -1e4])
def extreme(request):
  """Values at which functions must be finite; 1e-40 is denormal in float32."""
  return request.param
