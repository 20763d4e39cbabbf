"""Where arrays live: one mesh, rules over the abstract state, global batches.

Axes: `data` splits the batch, `fsdp` splits both the batch and large
parameters. One device is the mesh (1, 1): there is no other code path.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

# Smaller arrays cost more to gather than to keep whole on every device.
MIN_SHARDED_SIZE = 2**16


def make_mesh(fsdp: int = 1, devices: list | None = None) -> Mesh:
  """A (data, fsdp) mesh over `devices` (default: all that jax sees).

  Raises:
    ValueError: the devices do not divide by `fsdp`.
  """
  devices = jax.devices() if devices is None else devices
  if len(devices) % fsdp:
    raise ValueError(
      f"fsdp={fsdp} must divide the number of devices ({len(devices)})."
    )
  # Auto: XLA places what the rules below leave open.
  return jax.make_mesh(
    (len(devices) // fsdp, fsdp),
    ("data", "fsdp"),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def state_shardings(mesh: Mesh, abstract_state: PyTree) -> PyTree:
  """The rule: the largest axis that `fsdp` divides is split, if big."""
  size = mesh.shape["fsdp"]

  def rule(leaf) -> NamedSharding:
    axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
    if size == 1 or leaf.size < MIN_SHARDED_SIZE or not axes:
      return NamedSharding(mesh, PartitionSpec())
    axis = max(axes, key=lambda i: leaf.shape[i])
    spec = [None] * len(leaf.shape)
    spec[axis] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(rule, abstract_state)


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, batch: PyTree[np.ndarray]) -> PyTree[jax.Array]:
  """Host arrays -> global arrays whose first axis is split over the mesh."""
  sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      sharding, np.asarray(leaf)
    ),
    batch,
  )
