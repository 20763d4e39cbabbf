"""What a stage's `dtype` and `remat` mean to the networks in it.

Which precision the paper trained at is not known; both are our choice. The
parameters stay float32 whatever is chosen, as do norms, softmax, geometry,
compositing and losses.
"""

from collections.abc import Callable
from typing import Any

import jax

DTYPES = ("float32", "bfloat16")
# "blocks": of every block of a network only the inputs are kept for the
# gradient, and the rest is computed again; "all": of every network, too, whose
# blocks are then computed three times.
REMATS = ("none", "blocks", "all")


def fields(dtype: str, remat: str | bool) -> dict[str, Any]:
  """`dtype` and `remat` as the networks' Configs have them.

  Raises:
    ValueError: one of them is not known.
  """
  if dtype not in DTYPES:
    raise ValueError(f"dtype={dtype!r} must be one of {DTYPES}")
  if isinstance(remat, bool):  # As older runs wrote it down.
    remat = "blocks" if remat else "none"
  if remat not in REMATS:
    raise ValueError(f"remat={remat!r} must be one of {REMATS}")
  return {"dtype": dtype, "remat": remat != "none"}


def whole(remat: str | bool, function: Callable) -> Callable:
  """`function`; under "all" one of which the gradient keeps only the inputs."""
  return jax.checkpoint(function) if remat == "all" else function
