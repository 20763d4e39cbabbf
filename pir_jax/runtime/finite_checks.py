"""Finite checks: a NaN or infinity stops training, and is reported by name.

The metrics of a step are read after the next step has been dispatched, so that
the device never waits for the host.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from pir_jax.types import InputError

# Of a network: index of the first leaf of its gradient that is not finite.
_BAD = "bad/"
_NORM = "gradient_norm/"


class FiniteChecks:
  """Checks the metrics of every step, one step late.

  Attributes:
    state: the newest one.
  """

  def __init__(self, stage: Any, workdir: pathlib.Path):
    """Starts without any step; for `stage` see stages/base.py."""
    self._stage = stage
    self._workdir = workdir
    self._pending: tuple[int, Mapping[str, Array]] | None = None
    self.state: Any = None

  def add(self, step: int, state: Any, metrics: Mapping[str, Array]) -> None:
    """Keeps the results of this step, and checks the step before.

    Args:
      step: steps done.
      state: after it, a `train_state.TrainState`.
      metrics: its terms, `gradient_norm/NET` and `bad/NET`.

    Raises:
      InputError: a metric of the step before is not finite.
    """
    self.state = state
    for value in jax.tree.leaves(dict(metrics)):
      if isinstance(value, jax.Array):
        value.copy_to_host_async()
    before, self._pending = self._pending, (step, metrics)
    if before is not None:
      self._check(*before)

  def resolve(self) -> dict[str, float]:
    """Waits for the last step and returns its metrics, without the indices.

    Raises:
      InputError: one of them is not finite.
    """
    return self._check(*self._pending) if self._pending is not None else {}

  def check_state(self, step: int) -> None:
    """Checks the whole state, which a checkpoint is about to hold.

    Raises:
      InputError: it is not finite; names the first tensor.
    """
    name = self._bad_in_state()
    if name:
      raise self._error(f"{name} is not finite", step)

  def _check(self, step: int, metrics: Mapping[str, Array]) -> dict[str, float]:
    arrays = {name: np.asarray(value) for name, value in metrics.items()}
    bad = {k: int(v) for k, v in arrays.items() if k.startswith(_BAD)}
    terms = {k: float(v) for k, v in arrays.items() if k not in bad}
    if all(index < 0 for index in bad.values()) and all(
      map(math.isfinite, terms.values())
    ):
      return terms
    reasons = []
    # The norm of a gradient explains less than the tensor in it.
    for name in sorted(terms, key=lambda name: name.startswith(_NORM)):
      if not math.isfinite(terms[name]):
        reasons.append(f"{name} is {terms[name]}")
        break
    for key, index in bad.items():
      if index >= 0:
        net = key.removeprefix(_BAD)
        name = self._stage.leaf_name(net, index)
        reasons = [text for text in reasons if not text.startswith(_NORM)]
        reasons.append(f"the gradient of {net}'s {name} is not finite")
        break
    in_state = self._bad_in_state()
    if in_state:
      reasons.append(f"neither is {in_state}")
    raise self._error(", ".join(reasons), step)

  def _bad_in_state(self) -> str:
    names, leaves = zip(*_in_order(self.state), strict=True)
    index = int(_first_bad(list(leaves)))
    return f"the state's {names[index]}" if index >= 0 else ""

  def _error(self, reason: str, step: int) -> InputError:
    return InputError(
      f"{reason} at step {step}: training stopped, and {self._workdir} keeps "
      "its checkpoints; train in another --workdir with a lower learning rate."
    )


def _in_order(state: PyTree) -> list[tuple[str, Array]]:
  """Lists paths and leaves, optimisers first: they corrupt the parameters."""
  named = [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  ]
  return sorted(named, key=lambda pair: "/opt_state/" not in pair[0])


@jax.jit
def _first_bad(leaves: list[Array]) -> Int[Array, ""]:
  """Returns the index of the first leaf that is not finite; -1: none."""
  bad = jnp.stack(
    [
      ~jnp.isfinite(x).all()
      if jnp.issubdtype(x.dtype, jnp.floating)
      else jnp.bool_(False)
      for x in leaves
    ]
  )
  return jnp.where(bad.any(), jnp.argmax(bad), -1)
