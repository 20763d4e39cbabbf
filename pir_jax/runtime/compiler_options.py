"""Options of XLA's compiler for our programs; only a CPU needs any.

Of the libraries that XLA's CPU backend hands its work to, YNNPACK is the
quickest for matrix products and sums. For convolutions it takes up to eight
times as long as Eigen, which is what computes them here.
"""

import jax
from jax.sharding import Mesh

_CPU = {
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  )
}
# Older emitters and no optimization, for what compiles far longer than it runs.
_QUICK = {
  **_CPU,
  "xla_cpu_use_fusion_emitters": False,
  "xla_backend_optimization_level": 0,
}

Options = dict[str, str | bool | int] | None


def usual(mesh: Mesh | None = None) -> Options:
  """Returns the options of programs on these devices, or on JAX's first."""
  return _CPU if on_cpu(mesh) else None


def quick_to_compile(mesh: Mesh | None = None) -> Options:
  """Returns the options of programs that run rarely."""
  return _QUICK if on_cpu(mesh) else None


def on_cpu(mesh: Mesh | None = None) -> bool:
  """Whether these devices, or JAX's first, are a CPU."""
  devices = jax.devices() if mesh is None else mesh.devices.flat
  return devices[0].platform == "cpu"
