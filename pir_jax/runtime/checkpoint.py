"""Checkpoints: the state and the place in the data, whole or not there."""

import json
import pathlib
from typing import Any

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from pir_jax.types import InputError


class Checkpoints:
  """The numbered checkpoints of one run directory.

  A checkpoint is written beside its final name and renamed when it is
  complete, so that an interrupted save leaves none.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int = 2):
    self._manager = ocp.CheckpointManager(
      pathlib.Path(workdir).resolve() / "checkpoints",
      options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
      item_names=("state", "data"),
      item_handlers={
        "state": ocp.StandardCheckpointHandler(),
        "data": grain.checkpoint.CheckpointHandler(),
      },
    )

  def latest(self) -> int | None:
    """The newest step saved."""
    return self._manager.latest_step()

  def save(self, step: int, state: PyTree, iterator: Any) -> None:
    """Saves behind the caller's back; `close` waits for it."""
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        data=grain.checkpoint.CheckpointSave(iterator),
      ),
    )

  def restore(
    self, step: int, abstract_state: PyTree, iterator: Any = None
  ) -> PyTree:
    """The state at `step`; `iterator`, when given, is wound on in place.

    Args:
      step: one that was saved.
      abstract_state: shapes, dtypes and shardings to restore onto.
      iterator: a grain iterator over the same data.
    """
    items = {"state": ocp.args.StandardRestore(abstract_state)}
    if iterator is not None:
      items["data"] = grain.checkpoint.CheckpointRestore(iterator)
    return self._manager.restore(step, args=ocp.args.Composite(**items)).state

  def close(self) -> None:
    """Waits for saves under way and frees the manager."""
    self._manager.wait_until_finished()
    self._manager.close()


def abstract(state: PyTree, shardings: PyTree) -> PyTree:
  """What `restore` wants to know of a state: shapes, dtypes, shardings."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    state,
    shardings,
  )


def write_record(workdir: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes run.json (what the run is) whole or not at all."""
  workdir.mkdir(parents=True, exist_ok=True)
  part = workdir / "run.json.part"
  part.write_text(json.dumps(record, indent=2) + "\n")
  part.replace(workdir / "run.json")


def read_record(workdir: pathlib.Path) -> dict[str, Any]:
  """Reads run.json.

  Raises:
    InputError: there is none, or it is not JSON.
  """
  path = workdir / "run.json"
  if not path.exists():
    raise InputError(
      f"{workdir} is not a training run (it has no run.json): give the "
      "--workdir of a finished `python -m pir_jax.train`."
    )
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise InputError(f"{path} is damaged ({error}): train again.") from error
