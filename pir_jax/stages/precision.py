"""Activation dtype and rematerialisation of a stage's networks.

The paper's training precision is not known; both are our choice. Parameters
stay float32 in any case, as do norms, softmax, geometry, compositing and
losses.
"""

from collections.abc import Callable
from typing import Any

import jax

from pir_jax.types import ConfigError

DTYPES = ("float32", "bfloat16")
# "blocks": of every block of a network only the inputs are kept for the
# gradient, and the rest is computed again; "all": of every network, too, whose
# blocks are then computed three times.
REMATS = ("none", "blocks", "all")


def fields(dtype: str, remat: str) -> dict[str, Any]:
  """Returns `dtype` and `remat` as fields of the networks' Configs.

  Raises:
    ConfigError: one of them is not known.
  """
  if dtype not in DTYPES:
    raise ConfigError(f"dtype={dtype!r} must be one of {DTYPES}")
  if remat not in REMATS:
    raise ConfigError(f"remat={remat!r} must be one of {REMATS}")
  return {"dtype": dtype, "remat": remat != "none"}


def rematerialize(remat: str, function: Callable) -> Callable:
  """Wraps `function`, under "all", to keep only its inputs for the gradient."""
  return jax.checkpoint(function) if remat == "all" else function
