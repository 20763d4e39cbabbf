"""What is not finite, found in time and told by name.

A step's numbers are read after the next step has been handed to the device, so
that the device never waits for the reader.
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


class Watch:
  """Reads the numbers of every step, one step late.

  Attributes:
    state: the newest one.
  """

  def __init__(self, stage: Any, workdir: pathlib.Path):
    """Begins to watch; see stages/base.py for what a stage is."""
    self._stage = stage
    self._workdir = workdir
    self._pending: tuple[int, Mapping[str, Array]] | None = None
    self.state: Any = None

  def add(self, step: int, state: Any, values: Mapping[str, Array]) -> None:
    """Keeps what step `step` gave, and reads what the step before gave.

    Args:
      step: steps done.
      state: after it, a `base.TrainState`.
      values: its terms, `gradient_norm/NET` and `bad/NET`.

    Raises:
      InputError: a number of the step before is not finite.
    """
    self.state = state
    for value in jax.tree.leaves(dict(values)):
      if isinstance(value, jax.Array):
        value.copy_to_host_async()
    before, self._pending = self._pending, (step, values)
    if before is not None:
      self._read(*before)

  def settle(self) -> dict[str, float]:
    """Waits for the last step; its numbers, without the indices.

    Raises:
      InputError: one of them is not finite.
    """
    return self._read(*self._pending) if self._pending is not None else {}

  def check_state(self, step: int) -> None:
    """The state is finite: what is not must never replace what is.

    Raises:
      InputError: it is not; names the first tensor.
    """
    name = self._bad_in_state()
    if name:
      raise self._error(f"{name} is not finite", step)

  def _read(self, step, values) -> dict[str, float]:
    numbers = {name: np.asarray(value) for name, value in values.items()}
    bad = {k: int(v) for k, v in numbers.items() if k.startswith(_BAD)}
    terms = {k: float(v) for k, v in numbers.items() if k not in bad}
    if all(index < 0 for index in bad.values()) and all(
      map(math.isfinite, terms.values())
    ):
      return terms
    said = []
    # The norm of a gradient says less than the tensor in it.
    for name in sorted(terms, key=lambda name: name.startswith(_NORM)):
      if not math.isfinite(terms[name]):
        said.append(f"{name} is {terms[name]}")
        break
    for key, index in bad.items():
      if index >= 0:
        net = key.removeprefix(_BAD)
        name = self._stage.leaf_name(net, index)
        said = [text for text in said if not text.startswith(_NORM)]
        said.append(f"the gradient of {net}'s {name} is not finite")
        break
    where = self._bad_in_state()
    if where:
      said.append(f"neither is {where}")
    raise self._error(", ".join(said), step)

  def _bad_in_state(self) -> str:
    names, leaves = zip(*_in_order(self.state), strict=True)
    index = int(_first_bad(list(leaves)))
    return f"the state's {names[index]}" if index >= 0 else ""

  def _error(self, what: str, step: int) -> InputError:
    return InputError(
      f"{what} at step {step}: training stopped, and {self._workdir} keeps "
      "what was saved before; train in another --workdir with a lower learning "
      "rate."
    )


def _in_order(state: PyTree) -> list[tuple[str, Array]]:
  """Paths and leaves, optimisers first: what they hold spoils parameters."""
  named = [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  ]
  return sorted(named, key=lambda pair: "/opt_state/" not in pair[0])


@jax.jit
def _first_bad(leaves: list[Array]) -> Int[Array, ""]:
  """Index of the first leaf that is not finite; -1: none."""
  bad = jnp.stack(
    [
      ~jnp.isfinite(x).all()
      if jnp.issubdtype(x.dtype, jnp.floating)
      else jnp.bool_(False)
      for x in leaves
    ]
  )
  return jnp.where(bad.any(), jnp.argmax(bad), -1)
