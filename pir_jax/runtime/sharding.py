"""Where arrays live: one mesh, rules over the abstract state, global batches.

Axes: `data` splits the batch, `fsdp` splits both the batch and large
parameters, with their optimiser state and their averages. There is no `model`
axis: the largest network here has 0.3 G parameters, a layer of which any chip
holds, so splitting the arithmetic of one layer would only add messages.
One device is the mesh (1, 1): there is no other code path.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from pir_jax import ranges
from pir_jax.types import ConfigError

_BATCH = PartitionSpec(("data", "fsdp"))


@ranges.declare(min_size=ranges.COUNT_OR_NONE)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Over how many devices the state is split, and which of its arrays.

  Attributes:
    fsdp: devices that share one copy of the large arrays; must divide the
      number of devices.
    min_size: elements from which an array is large: smaller ones cost more to
      gather than to keep whole on every device.
    rules: (regular expression, action) pairs; the first that matches a part
      of an array's path, such as "ema/generator/synthesis/0/kernel", counts.
      Actions are "largest": split the longest axis that `fsdp` divides, if the
      array is large; "whole": keep it whole; or the index of the axis to split,
      such as "-1", whatever the size. Without a match: "largest".
  """

  fsdp: int = 1
  min_size: int = 2**16
  rules: tuple[tuple[str, str], ...] = ((".", "largest"),)


def make_mesh(fsdp: int | Config = 1, devices: list | None = None) -> Mesh:
  """Makes a (data, fsdp) mesh over `devices` (default: all that jax sees).

  Raises:
    ConfigError: the devices do not divide by `fsdp`.
  """
  size = fsdp.fsdp if isinstance(fsdp, Config) else fsdp
  devices = jax.devices() if devices is None else devices
  if size < 1 or len(devices) % size:
    raise ConfigError(
      f"sharding.fsdp={size} must divide the {len(devices)} devices."
    )
  # Auto: XLA places what the rules below leave open.
  return jax.make_mesh(
    (len(devices) // size, size),
    ("data", "fsdp"),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def state_shardings(
  mesh: Mesh, abstract_state: PyTree, config: Config | None = None
) -> PyTree:
  """Returns the sharding of each array of a state, by the rules of `config`.

  Args:
    mesh: of `make_mesh`.
    abstract_state: arrays, or their shapes.
    config: has the rules; None: the default.

  Raises:
    ConfigError: a rule is malformed, or names an axis that cannot be split.
  """
  config = config or Config()
  rules = [(_compile(regex), action) for regex, action in config.rules]

  def place(path, leaf) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    action = next((a for regex, a in rules if regex.search(name)), "largest")
    axis = _axis(action, name, leaf, mesh.shape["fsdp"], config.min_size)
    if axis is None:
      return replicated(mesh)
    spec = [None] * len(leaf.shape)
    spec[axis] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(place, abstract_state)


def _compile(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern)
  except re.error as error:
    raise ConfigError(
      f"sharding.rules: {pattern!r} is not a regular expression ({error})."
    ) from error


def _axis(
  what: str, name: str, leaf: Any, size: int, min_size: int
) -> int | None:
  """Returns the axis of an array to split; None: it stays whole."""
  if what == "whole" or (what == "largest" and size == 1):
    return None
  if what == "largest":
    axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
    if math.prod(leaf.shape) < min_size or not axes:
      return None
    return max(axes, key=lambda i: leaf.shape[i])
  if not re.fullmatch(r"-?\d+", what):
    raise ConfigError(
      f"sharding.rules: {what!r} must be 'largest', 'whole' or an axis."
    )
  axis, rank = int(what), len(leaf.shape)
  if not -rank <= axis < rank or leaf.shape[axis] % size:
    raise ConfigError(
      f"sharding.rules: axis {axis} of {name} {tuple(leaf.shape)} is not split"
      f" over fsdp={size}: write a rule that leaves this array out."
    )
  return axis % rank


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding with the whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def device_bytes(state: PyTree) -> tuple[int, int]:
  """Counts the bytes of a state on one device, and of one whole copy.

  Args:
    state: arrays, or abstract ones with their shardings.
  """
  held = whole = 0
  for leaf in jax.tree.leaves(state):
    size = np.dtype(leaf.dtype).itemsize
    # Every device holds as much as any other: the rules split evenly.
    held += size * math.prod(leaf.sharding.shard_shape(tuple(leaf.shape)))
    whole += size * math.prod(leaf.shape)
  return held, whole


def local_rows(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
  """Lists the rows of each global batch that this process needs, ascending.

  Raises:
    ConfigError: the batch does not divide by the devices.
  """
  if batch_size % mesh.size:
    raise ConfigError(
      f"batch_size={batch_size} must be a multiple of the {mesh.size} devices."
    )
  places = NamedSharding(mesh, _BATCH).addressable_devices_indices_map(
    (batch_size,)
  )
  every = range(batch_size)
  return tuple(
    sorted({row for (part,) in places.values() for row in every[part]})
  )


def shard_batch(mesh: Mesh, batch: PyTree[np.ndarray]) -> PyTree[jax.Array]:
  """Makes global arrays, split over the mesh, of the rows of this process.

  Args:
    mesh: of the run.
    batch: arrays whose first axis holds the `local_rows` of a global batch, in
      that order; with one process, the whole batch.
  """
  sharding = NamedSharding(mesh, _BATCH)
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      sharding, np.asarray(leaf)
    ),
    batch,
  )


def place_whole(mesh: Mesh, batch: PyTree[np.ndarray]) -> PyTree[jax.Array]:
  """Makes global arrays of a batch that every process has whole.

  Split over the mesh where its size divides by the devices; else every device
  has all of it, as a last, short batch of held-out examples needs.
  """
  size = len(jax.tree.leaves(batch)[0])
  spec = PartitionSpec() if size % mesh.size else _BATCH
  sharding = NamedSharding(mesh, spec)
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      sharding, np.asarray(leaf), np.shape(leaf)
    ),
    batch,
  )
