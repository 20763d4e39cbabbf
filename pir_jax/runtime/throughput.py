"""How fast a run is: times between reports, without what is no step."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from pir_jax.runtime import chips, flops


class Pace:
  """The clock of a run, read at its reports.

  A report comes when the device has done its last step; so the times between
  are the device's, however early it was given its work.
  """

  def __init__(self, stage: Any):
    """Starts.

    Args:
      stage: whose steps they are; see stages/base.py.
    """
    self._stage = stage
    device = stage.mesh.devices.flat[0]
    chip = chips.find(device.device_kind)
    self._peak = chip.peak_flops if chip else None
    self._num_devices = stage.mesh.size
    self._work: dict[frozenset[str], float] = {}
    self.restart()

  def restart(self) -> None:
    """A new window begins."""
    self._begin = time.perf_counter()
    self._waited = self._paused = 0.0
    self._flops = 0.0
    self._steps = self._examples = 0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Around what asks for data."""
    begin = time.perf_counter()
    yield
    self._waited += time.perf_counter() - begin

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Around what is no step: an evaluation, a checkpoint."""
    begin = time.perf_counter()
    yield
    self._paused += time.perf_counter() - begin

  def count(self, given: tuple, index: int, values: Mapping[str, Any]) -> None:
    """A step was taken.

    Args:
      given: its state, batch and key, of which only shapes are looked at.
      index: of the step.
      values: that it gave. Their names tell which phases it had: the work of
        each combination is counted once.
    """
    self._steps += 1
    self._examples += len(jax.tree.leaves(given[1])[0])
    if self._peak is None:
      return
    phases = frozenset(values)
    if phases not in self._work:
      with self.paused():
        self._work[phases] = flops.count(
          lambda *given: self._stage.step(*given, index=index),
          *jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given
          ),
        )
    self._flops += self._work[phases]

  def window(self) -> dict[str, float]:
    """What the steps since the last report took; the next ones are counted.

    `data_wait_seconds` is the host's, of each step: where it is shorter than
    the step, the device need not have waited at all. `mfu` is the share of the
    chip's peak in bfloat16, and is left out where that is not known.
    """
    now = time.perf_counter()
    seconds = max(now - self._begin - self._paused, 1e-9)
    found = {
      "step_seconds": seconds / max(self._steps, 1),
      "data_wait_seconds": self._waited / max(self._steps, 1),
      "examples_per_second_per_device": self._examples
      / seconds
      / self._num_devices,
    }
    if self._peak is not None:
      found["mfu"] = self._flops / seconds / self._num_devices / self._peak
    found |= memory(self._stage.mesh)
    self.restart()
    return found


def memory(mesh: Mesh) -> dict[str, float]:
  """GiB in use, and at the most, on the fullest of this process's devices.

  Of the process (`process_memory_gib`) where its devices do not tell.
  """
  told = [device.memory_stats() for device in mesh.local_devices]
  fullest = max(
    filter(None, told), key=lambda told: told["bytes_in_use"], default=None
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
