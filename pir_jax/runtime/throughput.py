"""Training throughput, excluding evaluation and checkpointing."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from pir_jax.runtime import chips, flops


class Throughput:
  """Measures the steps between two reports.

  A report waits for the device to finish its last step; so the time between
  two is the device's, however early its work was dispatched.
  """

  def __init__(self, stage: Any):
    """Starts the first window.

    Args:
      stage: see stages/base.py.
    """
    self._stage = stage
    device = stage.mesh.devices.flat[0]
    chip = chips.find(device.device_kind)
    self._peak = chip.peak_flops if chip else None
    self._num_devices = stage.mesh.size
    self._work: dict[frozenset[str], float] = {}
    self.restart()

  def restart(self) -> None:
    """Starts a new window."""
    self._begin = time.perf_counter()
    self._waited = self._paused = 0.0
    self._flops = 0.0
    self._steps = self._examples = 0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Times a wait for data."""
    begin = time.perf_counter()
    yield
    self._waited += time.perf_counter() - begin

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes an evaluation or a checkpoint."""
    begin = time.perf_counter()
    yield
    self._paused += time.perf_counter() - begin

  def count(self, args: tuple, index: int, metrics: Mapping[str, Any]) -> None:
    """Counts a step.

    Args:
      args: its state, batch and key, of which only the shapes are read.
      index: of the step.
      metrics: of the step. Their names identify its phases: the operations of
        each combination are counted once.
    """
    self._steps += 1
    self._examples += len(jax.tree.leaves(args[1])[0])
    if self._peak is None:
      return
    phases = frozenset(metrics)
    if phases not in self._work:
      with self.paused():
        self._work[phases] = flops.count(
          lambda *args: self._stage.step(*args, index=index),
          *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args),
        )
    self._flops += self._work[phases]

  def window(self) -> dict[str, float]:
    """Returns the throughput since the last report, and starts a new window.

    `data_wait_seconds` is the host's, of each step: where it is shorter than
    the step, the device need not have waited at all. `mfu` is the share of the
    chip's peak in bfloat16, and is left out where the peak is not known.
    """
    now = time.perf_counter()
    seconds = max(now - self._begin - self._paused, 1e-9)
    per_device = seconds * self._num_devices
    steps = max(self._steps, 1)
    metrics = {
      "step_seconds": seconds / steps,
      "data_wait_seconds": self._waited / steps,
      "examples_per_second_per_device": self._examples / per_device,
    }
    if self._peak is not None:
      metrics["mfu"] = self._flops / per_device / self._peak
    metrics |= memory(self._stage.mesh)
    self.restart()
    return metrics


def memory(mesh: Mesh) -> dict[str, float]:
  """Returns GiB in use, and the peak, on this process's fullest device.

  Where its devices do not count them, `process_memory_gib` of the process.
  """
  statistics = [device.memory_stats() for device in mesh.local_devices]
  fullest = max(
    filter(None, statistics), key=lambda s: s["bytes_in_use"], default=None
  )
  if fullest:
    return {
      "memory_gib": fullest["bytes_in_use"] / 2**30,
      "memory_peak_gib": fullest["peak_bytes_in_use"] / 2**30,
    }
  path = pathlib.Path("/proc/self/statm")
  if not path.exists():  # Not Linux.
    return {}
  pages = int(path.read_text().split()[1])
  return {"process_memory_gib": pages * os.sysconf("SC_PAGE_SIZE") / 2**30}
