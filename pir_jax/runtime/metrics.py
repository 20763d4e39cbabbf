"""Where numbers and pictures of a run go: the terminal and TensorBoard."""

import pathlib
import time
from collections.abc import Mapping

import numpy as np
import tensorboardX
from jaxtyping import Float
from rich import progress


class Reporter:
  """Progress on the terminal; scalars and image grids for TensorBoard."""

  def __init__(self, workdir: pathlib.Path, *, name: str, num_steps: int):
    self._writer = tensorboardX.SummaryWriter(str(workdir / "tensorboard"))
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
    self._last = (time.monotonic(), 0)

  def __enter__(self) -> "Reporter":
    if self._progress.console.is_terminal:
      self._progress.start()
    return self

  def __exit__(self, *unused_error) -> None:
    self._progress.stop()
    self._writer.close()

  def start(self, step: int) -> None:
    """Counts from `step`: what came before was another run's time."""
    self._last = (time.monotonic(), step)
    self._progress.update(self._task, completed=step)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Training metrics after `step` steps, with the rate since the last."""
    then, before = self._last
    now = time.monotonic()
    self._last = (now, step)
    rate = (step - before) / max(now - then, 1e-9)
    for key, value in values.items():
      self._writer.add_scalar(key, value, step)
    self._writer.add_scalar("steps_per_second", rate, step)
    note = f"{rate:.2f} steps/s  " + _line(values)
    self._progress.update(self._task, completed=step, note=note)
    if not self._progress.console.is_terminal:
      left = (self._num_steps - step) / max(rate, 1e-9)
      # The first step is mostly compilation: it foretells nothing.
      ahead = f"{left:.0f} s left" if step - before > 1 else "compiled"
      print(
        f"{self._name} {step}/{self._num_steps}  {note}  {ahead}", flush=True
      )

  def evaluation(self, step: int, values: Mapping[str, float]) -> None:
    """Metrics on the held-out frames."""
    for key, value in values.items():
      self._writer.add_scalar(f"held_out/{key}", value, step)
    self._progress.console.print(
      f"{self._name} {step}: held-out {_line(values)}",
      highlight=False,
      soft_wrap=True,
    )

  def image(
    self, step: int, name: str, grid: Float[np.ndarray, "h w 3"]
  ) -> None:
    """An image grid in [-1, 1]."""
    pixels = np.clip((grid + 1.0) * 127.5, 0, 255).astype(np.uint8)
    self._writer.add_image(name, pixels, step, dataformats="HWC")


def _line(values: Mapping[str, float]) -> str:
  return "  ".join(f"{key} {value:.4g}" for key, value in values.items())
