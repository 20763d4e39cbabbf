"""Where numbers and pictures of a run go: the terminal and TensorBoard.

Process 0 alone reports; on the others everything here is silent.
"""

import pathlib
import time
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float
from rich import progress

from pir_jax.runtime import event_writer

_NORM = "gradient_norm/"


class Reporter:
  """Progress on the terminal; scalars and image grids for TensorBoard."""

  def __init__(self, workdir: pathlib.Path, *, name: str, num_steps: int):
    self._on = jax.process_index() == 0
    if self._on:
      self._writer = event_writer.Events(workdir / "tensorboard")
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
    """The run is at `step`; its first step is compiled next."""
    self._begin = time.monotonic()
    self._progress.update(self._task, completed=step)
    if step < self._num_steps:
      self.say(f"from step {step}, compiling ...")

  def compiled(self, step: int, values: Mapping[str, float]) -> None:
    """The first step is done: it was mostly compilation."""
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
    pace: Mapping[str, float],
  ) -> None:
    """Training metrics after `step` steps, and how fast they came.

    Args:
      step: steps done.
      values: terms and norms of gradients.
      pace: see `pace.Pace.window`.
    """
    self._write("", values, step)
    self._write("pace/", pace, step)
    taken = pace["step_seconds"]
    parts = [
      f"{taken:.3g} s/step",
      f"{pace['examples_per_second_per_device']:.3g} examples/s/device",
    ]
    if pace["data_wait_seconds"] > 0.05 * taken:
      parts.append(f"waits {pace['data_wait_seconds']:.2g} s for data")
    if "mfu" in pace:
      parts.append(f"MFU {100 * pace['mfu']:.1f} %")
    for name in ("memory_gib", "process_memory_gib"):
      if name in pace:
        parts.append(f"{pace[name]:.3g} GiB")
    note = "  ".join([*parts, _line(_few(values))])
    self._progress.update(self._task, completed=step, note=note)
    if not self._progress.console.is_terminal:
      left = (self._num_steps - step) * taken
      self.say(f"{step}/{self._num_steps}  {note}  {left:.0f} s left")

  def evaluation(self, step: int, values: Mapping[str, float]) -> None:
    """Metrics on the held-out frames."""
    self._write("held_out/", values, step)
    self.say(f"{step}: held-out {_line(values)}")

  def image(
    self, step: int, name: str, grid: Float[np.ndarray, "h w 3"]
  ) -> None:
    """An image grid in [-1, 1]."""
    if self._on:
      pixels = np.clip((grid + 1.0) * 127.5, 0, 255).astype(np.uint8)
      self._writer.add_image(name, pixels, step)

  def say(self, sentence: str) -> None:
    """A line on the terminal, above the bar if there is one."""
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
  """What a line has room for: the loss, and the size of its gradients."""
  loss = {"loss": values["loss"]} if "loss" in values else dict(values)
  norms = {k: v for k, v in values.items() if k.startswith(_NORM)}
  return loss | norms


def _line(values: Mapping[str, float]) -> str:
  return "  ".join(
    f"{key.removeprefix('gradient_')} {value:.4g}"
    for key, value in values.items()
  )
