"""Writes the metrics and images of a run to the terminal and TensorBoard.

Process 0 alone reports; on the others everything here is silent.
"""

import os
import pathlib
import sys
import time
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, UInt8
from rich import progress
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

_NORM = "gradient_norm/"
_FLUSH_SECONDS = 30.0


class Events:
  """One TensorBoard file, written by the calling thread.

  The thread that tensorboardX starts for it ends silently on a full disk, and
  the run then waits for it for ever.
  """

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    # Two runs may start in the same second.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), f".{os.getpid()}"
    )
    self._flushed = time.monotonic()

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Adds a metric at one step.

    Raises:
      OSError: it cannot be written.
    """
    self._add(summary.scalar(name, value), step)

  def add_image(
    self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int
  ) -> None:
    """Adds an image at one step.

    Raises:
      OSError: it cannot be written.
    """
    self._add(summary.image(name, pixels, dataformats="HWC"), step)

  def close(self) -> None:
    """Writes the rest; where it cannot, prints a warning."""
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


class Reporter:
  """Progress on the terminal; metrics and image grids for TensorBoard."""

  def __init__(self, workdir: pathlib.Path, *, name: str, num_steps: int):
    self._on = jax.process_index() == 0
    if self._on:
      self._writer = Events(workdir / "tensorboard")
    self._progress = progress.Progress(
      progress.TextColumn("[bold]{task.description}"),
      progress.BarColumn(bar_width=20),
      progress.MofNCompleteColumn(),
      progress.TextColumn("{task.fields[note]}"),
      progress.TimeRemainingColumn(),
      refresh_per_second=2,
    )
    self._name = name
    self._num_steps = num_steps
    self._task = self._progress.add_task(name, total=num_steps, note="")
    self._begin = time.monotonic()

  def __enter__(self) -> "Reporter":
    if self._on and self._progress.console.is_terminal:
      self._progress.start()
    return self

  def __exit__(self, *unused_error) -> None:
    self._progress.stop()
    if self._on:
      self._writer.close()

  def start(self, step: int) -> None:
    """Reports that the run is at `step` and compiles its next one."""
    self._begin = time.monotonic()
    self._progress.update(self._task, completed=step)
    if step < self._num_steps:
      self.say(f"from step {step}, compiling ...")

  def compiled(self, step: int, values: Mapping[str, float]) -> None:
    """Reports the first step, which was mostly compilation."""
    seconds = time.monotonic() - self._begin
    self._write("", values, step)
    self._write("", {"first_step_seconds": seconds}, step)
    self._progress.update(self._task, completed=step)
    self.say(
      f"{step}/{self._num_steps}  compiled and done in {seconds:.1f} s  "
      + _line(_few(values))
    )

  def scalars(
    self,
    step: int,
    values: Mapping[str, float],
    throughput: Mapping[str, float],
  ) -> None:
    """Reports training metrics and throughput after `step` steps.

    Args:
      step: steps done.
      values: terms and norms of gradients.
      throughput: see `throughput.Throughput.window`.
    """
    self._write("", values, step)
    self._write("throughput/", throughput, step)
    taken = throughput["step_seconds"]
    parts = [
      f"{taken:.3g} s/step",
      f"{throughput['examples_per_second_per_device']:.3g} examples/s/device",
    ]
    if throughput["data_wait_seconds"] > 0.05 * taken:
      parts.append(f"waits {throughput['data_wait_seconds']:.2g} s for data")
    if "mfu" in throughput:
      parts.append(f"MFU {100 * throughput['mfu']:.1f} %")
    for name in ("memory_gib", "process_memory_gib"):
      if name in throughput:
        parts.append(f"{throughput[name]:.3g} GiB")
    note = "  ".join([*parts, _line(_few(values))])
    self._progress.update(self._task, completed=step, note=note)
    if not self._progress.console.is_terminal:
      left = (self._num_steps - step) * taken
      self.say(f"{step}/{self._num_steps}  {note}  {left:.0f} s left")

  def evaluation(self, step: int, values: Mapping[str, float]) -> None:
    """Reports metrics on the held-out examples."""
    self._write("held_out/", values, step)
    self.say(f"{step}: held-out {_line(values)}")

  def image(
    self, step: int, name: str, grid: Float[np.ndarray, "h w 3"]
  ) -> None:
    """Adds an image grid in [-1, 1]."""
    if self._on:
      pixels = np.clip((grid + 1.0) * 127.5, 0, 255).astype(np.uint8)
      self._writer.add_image(name, pixels, step)

  def say(self, sentence: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    if self._on:
      self._progress.console.print(
        f"{self._name} {sentence}",
        highlight=False,
        markup=False,
        soft_wrap=True,
      )
      self._progress.console.file.flush()

  def _write(self, group: str, values: Mapping[str, float], step: int) -> None:
    if self._on:
      for key, value in values.items():
        self._writer.add_scalar(group + key, value, step)


def _few(values: Mapping[str, float]) -> dict[str, float]:
  """Selects the loss and its gradient norms, as a line has little room."""
  loss = {"loss": values["loss"]} if "loss" in values else dict(values)
  norms = {k: v for k, v in values.items() if k.startswith(_NORM)}
  return loss | norms


def _line(values: Mapping[str, float]) -> str:
  return "  ".join(
    f"{key.removeprefix('gradient_')} {value:.4g}"
    for key, value in values.items()
  )
