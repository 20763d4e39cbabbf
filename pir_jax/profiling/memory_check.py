"""Refuses a training that cannot fit its devices, before it is compiled."""

import jax

from pir_jax.profiling import abstract_stage
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import memory, memory_estimate, sharding
from pir_jax.stages import base
from pir_jax.types import InputError

# XLA held 1.4 to 1.7 times the estimate in the demos' four kinds of step.
_OVERHEAD = 1.6


def check(experiment: Experiment, stage: base.Stage) -> None:
  """Estimates state and activations of a step against the device's memory.

  Args:
    experiment: of the stage.
    stage: whose step is traced.

  Raises:
    InputError: it does not fit; the sentence names what would.
  """
  device = stage.mesh.local_devices[0]
  free = memory_estimate.free_bytes(device)
  if free is None:
    return
  args = abstract_stage.arguments(experiment, stage)
  activations = max(
    memory_estimate.temporaries(step.trace(*args).jaxpr.jaxpr)
    for step in stage.compiled
  )
  activations = round(_OVERHEAD * activations) // stage.mesh.size
  state = sharding.device_bytes(stage.abstract_state())[0]
  frozen = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(stage.frozen)
  )
  if state + frozen + activations <= free:
    return
  batch, parts = experiment.data.batch_size, experiment.stage.accumulate
  raise InputError(
    f"a step needs about {memory.readable(state + frozen + activations)} and "
    f"{device.device_kind} has {memory.readable(free)} free: "
    + advice(
      batch, parts, stage.mesh.size, (free - state - frozen) / activations
    )
  )


def advice(batch: int, parts: int, devices: int, share: float) -> str:
  """Returns what to set so that the activations shrink to a share of theirs.

  Args:
    batch: examples of a step.
    parts: in which they are taken, one after another.
    devices: over which each part is shared out.
    share: of the activations that fits.
  """
  fits = int(batch // parts * share) // devices * devices
  if fits < 1:
    return "not even one example fits; take :demo, or a larger device."
  smaller = next(
    k for k in range(parts, batch + 1) if batch % k == 0 and batch // k <= fits
  )
  return (
    f"set --config.stage.accumulate={smaller} (the same batch, in parts) or "
    f"--config.data.batch_size={fits * parts}."
  )
