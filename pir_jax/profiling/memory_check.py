"""Refuses a training that cannot fit its devices, before it is compiled."""

import dataclasses

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
  devices = stage.mesh.size
  activations = _activations(experiment, stage)
  state = sharding.device_bytes(stage.abstract_state())[0]
  frozen = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(stage.frozen)
  )
  if state + frozen + activations <= free:
    return
  # What a batch as small as can be takes tells what grows with its size.
  batch, parts = experiment.data.batch_size, experiment.stage.accumulate
  least = _activations(
    dataclasses.replace(
      experiment,
      data=dataclasses.replace(experiment.data, batch_size=devices * parts),
    ),
    stage,
  )
  each = (activations - least) / max(batch // parts // devices - 1, 1)
  # In parts, a sum of gradients is kept as well.
  gradients = sum(
    leaf.size * leaf.dtype.itemsize
    for net in stage.abstract_state().nets.values()
    for leaf in jax.tree.leaves(net.params)
  )
  room = free - state - frozen - least - gradients
  fits = devices * (1 + int(room / each)) if each and room >= 0 else 0
  raise InputError(
    f"a step needs about {memory.readable(state + frozen + activations)} and "
    f"{device.device_kind} has {memory.readable(free)} free: "
    + advice(batch, parts, fits)
  )


def _activations(experiment: Experiment, stage: base.Stage) -> int:
  """Estimates the activations of a step on one device, in bytes."""
  args = abstract_stage.arguments(experiment, stage)
  most = max(
    memory_estimate.temporaries(step.trace(*args).jaxpr.jaxpr)
    for step in stage.compiled
  )
  return round(_OVERHEAD * most) // stage.mesh.size


def advice(batch: int, parts: int, fits: int) -> str:
  """Returns what to set so that a step fits.

  Args:
    batch: examples of a step.
    parts: in which they are taken, one after another.
    fits: examples that fit at once; 0: not one on each device.
  """
  if not fits:
    return (
      "not even one example on each fits: take :demo, whose networks are "
      "small, or a larger device."
    )
  smaller = next(
    k for k in range(parts, batch + 1) if batch % k == 0 and batch // k <= fits
  )
  return (
    f"set --config.stage.accumulate={smaller} (the same batch, in parts) or "
    f"--config.data.batch_size={fits * parts}; to try it out, take :demo."
  )
