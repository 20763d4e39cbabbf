"""Regex tables that carry published weights (numpy) into our modules.

A table is a list of `Rule`s; each name of a state dict is moved by the first
rule whose pattern matches all of it. Every mismatch is reported at once.
o output channels, i input channels, h kernel height, w kernel width.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from pir_jax.types import InputError

Transform = Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
  r"""Where one family of published names goes.

  Attributes:
    pattern: regular expression of the whole published name.
    path: template of our path, dots between the parts and `\1`, `\2` for the
      groups, such as `r"blocks.\1.kernel"`; None drops the name on purpose.
    transform: turns the published layout into ours.
  """

  pattern: str
  path: str | None
  transform: Transform = np.asarray


def linear(weight: np.ndarray) -> np.ndarray:
  """(o, i) -> (i, o)."""
  return np.transpose(weight)


def conv1d(weight: np.ndarray) -> np.ndarray:
  """(o, i, w) -> (w, i, o)."""
  return np.transpose(weight, (2, 1, 0))


def conv2d(weight: np.ndarray) -> np.ndarray:
  """(o, i, h, w) -> (h, w, i, o)."""
  return np.transpose(weight, (2, 3, 1, 0))


def apply(
  table: Sequence[Rule],
  state_dict: Mapping[str, np.ndarray],
  module: nnx.Module,
  *,
  keep: Sequence[str] = (),
) -> None:
  """Writes published weights into `module`, in place, or raises.

  Args:
    table: rules, the first match wins.
    state_dict: published name -> array, in the published layout.
    module: receives the values in its own dtypes.
    keep: patterns of our paths that may stay as initialised.

  Raises:
    InputError: names no rule knows, our paths left without a value, two names
      for one path, or wrong shapes: all of them in one message. The module is
      then unchanged.
  """
  targets = {
    ".".join(map(str, path)): variable
    for path, variable in nnx.to_flat_state(nnx.state(module))
  }
  values, problems = _route(table, state_dict, targets)
  for path in targets:
    if path not in values and not any(re.fullmatch(p, path) for p in keep):
      problems.append(f"missing: nothing in the file gives {path}")
  if problems:
    raise InputError(
      f"these weights do not fit {type(module).__name__} "
      f"({len(problems)} mismatches); check the variant and its Config:\n  "
      + "\n  ".join(sorted(problems))
    )
  for path, value in values.items():
    _set(module, path, jnp.asarray(value, targets[path][...].dtype))


def _route(table, state_dict, targets):
  """Returns (our path -> array, list of mismatches); writes nothing."""
  values, source, problems = {}, {}, []
  for name, array in state_dict.items():
    rule = next((r for r in table if re.fullmatch(r.pattern, name)), None)
    if rule is None:
      problems.append(f"unused: no rule for {name} {np.shape(array)}")
      continue
    if rule.path is None:
      continue
    path = re.fullmatch(rule.pattern, name).expand(rule.path)
    if path not in targets:
      problems.append(f"unused: {name} goes to {path}, which does not exist")
      continue
    if path in values:
      problems.append(f"twice: {source[path]} and {name} both give {path}")
      continue
    value = rule.transform(np.asarray(array))
    source[path], values[path] = name, value
    want = targets[path][...].shape
    if value.shape != want:
      problems.append(f"shape: {name} gives {path} {value.shape}, not {want}")
  return values, problems


def _set(module, path, value):
  """Assigns the variable at a dotted path (integers index lists)."""
  node = module
  for part in path.split("."):
    node = node[int(part)] if part.isdigit() else getattr(node, part)
  node[...] = value
