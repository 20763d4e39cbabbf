"""Whether a run is finished: what a launcher asks before it starts it again.

Training ends with exit code 0 both when it is finished and when it has saved
because the machine was wanted; only a finished run has the file FINISHED.
"""

import pathlib

import jax

FINISHED = "finished"


def mark(workdir: pathlib.Path, num_steps: int) -> None:
  """All `num_steps` are done and saved."""
  if jax.process_index() == 0:
    (workdir / FINISHED).write_text(f"{num_steps}\n")


def clear(workdir: pathlib.Path) -> None:
  """The run is about to go on, perhaps for more steps than it once had."""
  if jax.process_index() == 0:
    (workdir / FINISHED).unlink(missing_ok=True)
