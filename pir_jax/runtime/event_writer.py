"""TensorBoard's files, written by the thread that has the figures.

The writer that tensorboardX starts beside it dies unheard on a full disk, and
the run then waits for it for ever.
"""

import os
import pathlib
import sys
import time

import numpy as np
from jaxtyping import UInt8
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

_FLUSH_SECONDS = 30.0


class Events:
  """One file of figures and pictures."""

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    # Two starts may fall into one second.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), f".{os.getpid()}"
    )
    self._flushed = time.monotonic()

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """One figure at one step.

    Raises:
      OSError: it cannot be written.
    """
    self._add(summary.scalar(name, value), step)

  def add_image(
    self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int
  ) -> None:
    """One picture at one step.

    Raises:
      OSError: it cannot be written.
    """
    self._add(summary.image(name, pixels, dataformats="HWC"), step)

  def close(self) -> None:
    """Writes the rest; where it cannot, a warning says so."""
    try:
      self._writer.close()
    except OSError as error:  # The run's own end must not be lost over it.
      print(
        f"warning: the last figures for TensorBoard are lost "
        f"({error.strerror}).",
        file=sys.stderr,
      )

  def _add(self, content, step: int) -> None:
    self._writer.write_event(
      event_pb2.Event(wall_time=time.time(), step=step, summary=content)
    )
    if time.monotonic() - self._flushed > _FLUSH_SECONDS:
      self._writer.flush()
      self._flushed = time.monotonic()
