"""Checkpoints: the state and the data iterator, whole or absent.

A folder `checkpoints/STEP` holds three items: `state` (arrays), `data` (the
state of the data iterator) and `about` (step, config and versions). Damaged
checkpoints are moved to `damaged/`, see checkpoint_integrity.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import (
  AnyPreservationPolicy,
  BestN,
  LatestN,
)

from pir_jax.runtime import checkpoint_integrity
from pir_jax.types import InputError

_ITERATOR = "iterator.json"
_OLD = "old"  # Replaced checkpoints are moved there, and then deleted.
# Errors of file systems, and of tensorstore for them, that prevent a save.
_FULL = tuple(
  os.strerror(number)
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
)


class Checkpoints:
  """The numbered checkpoints of one run directory.

  A checkpoint is written beside its final name with a list of its files, and
  renamed when it is complete, so that an interrupted save leaves none. Older
  ones are deleted only when a newer one is complete. Every process of a cluster
  must call the same methods in the same order; they share one disk.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    keep: int = 2,
    best: str = "",
    read_only: bool = False,
  ):
    """Opens the checkpoints, and deletes the remains of an interrupted save.

    Args:
      workdir: of the run.
      keep: number of newest checkpoints kept.
      best: held-out metric whose best checkpoint is kept as well; the highest
        is best, or the lowest after a minus ("psnr", "-lpips").
      read_only: writes, moves and deletes nothing, as another process may be
        training this run; files are not hashed, see `newest_whole`.
    """
    self._workdir = pathlib.Path(workdir).resolve()
    self._folder = self._workdir / "checkpoints"
    self._best = best
    self._read_only = read_only
    self._saving: int | None = None
    self._failed = False
    if not read_only and jax.process_index() == 0:
      _remove(self._folder / _OLD)
      checkpoint_integrity.set_aside_damaged(self._workdir)
    multihost_utils.sync_global_devices("checkpoints opened")
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=self._options(keep),
      item_names=("state", "data", "about"),
      item_handlers={
        "state": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(_ITERATOR),
        "about": ocp.JsonCheckpointHandler("about.json"),
      },
    )

  def _options(self, keep: int) -> ocp.CheckpointManagerOptions:
    if self._read_only:
      return ocp.CheckpointManagerOptions(
        create=False, save_root_metadata=False, lightweight_initialize=True
      )
    policies = [LatestN(keep)]
    if self._best:
      policies.append(
        BestN(
          get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
        )
      )
    return ocp.CheckpointManagerOptions(
      create=True,
      cleanup_tmp_directories=True,
      # An interrupted deletion must not leave half a checkpoint.
      todelete_subdir=_OLD,
      best_fn=self._score if self._best else None,
      preservation_policy=AnyPreservationPolicy(policies),
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._write_file_list,
        # On a full disk an asynchronous save may wait for ever.
        create_directories_asynchronously=False,
      ),
    )

  def best(self) -> int | None:
    """Returns the step with the best held-out metric; None without any."""
    return self._manager.best_step() if self._best else None

  def steps(self) -> list[int]:
    """Lists the steps saved, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: PyTree,
    iterator: Any,
    metrics: Mapping[str, float] | None = None,
    wait: bool = False,
  ) -> None:
    """Saves in the background; a step that exists already is kept.

    Args:
      step: optimiser steps done.
      state: its arrays may be donated as soon as this returns.
      iterator: of the data; `get_state` returns JSON values.
      metrics: on held-out data, at this step.
      wait: returns only when the checkpoint is complete.

    Raises:
      InputError: this or the last checkpoint cannot be written (a full disk),
        or `best` is not among `metrics`.
    """
    name = self._best.removeprefix("-")
    if name and metrics and name not in metrics:
      raise InputError(
        f"the best checkpoint is to be chosen by {name!r}, which is no "
        f"held-out metric of this stage: choose from {', '.join(metrics)}."
      )
    self.wait()
    if step not in self._manager.all_steps():
      if jax.process_index() == 0:
        _remove(self._folder / _OLD)
      self._saving = step
      with self._writing():
        self._manager.save(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(iterator.get_state()),
            about=ocp.args.JsonSave(_about(self._workdir, step)),
          ),
          metrics=dict(metrics) if metrics else None,
          force=True,
        )
    if wait:
      self.wait()

  def wait(self) -> None:
    """Waits for the current save.

    Raises:
      InputError: it cannot be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
    self._saving = None

  def restore(
    self, step: int, abstract_state: PyTree, iterator: Any = None
  ) -> PyTree:
    """Returns the state at `step`; restores `iterator`, if any, in place.

    Args:
      step: a saved one.
      abstract_state: shapes, dtypes and shardings to restore onto.
      iterator: a grain iterator over the same data.

    Raises:
      InputError: the checkpoint is of networks of other sizes.
    """
    self.check_shapes(step, abstract_state)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
    state = self._manager.restore(step, args=items).state
    if iterator is not None:
      path = self._folder / str(step) / "data" / _ITERATOR
      iterator.set_state(json.loads(path.read_text()))
    return state

  def restore_newest(
    self, abstract_state: PyTree, iterator: Any = None
  ) -> tuple[int, PyTree] | None:
    """Returns the step and state of the newest undamaged checkpoint.

    A damaged one is reported on stderr and moved to `damaged/`, so that its
    step can be saved again. Returns None where nothing is saved yet.

    Args:
      abstract_state: see `restore`.
      iterator: see `restore`.

    Raises:
      InputError: there are checkpoints, and all are damaged.
    """
    step = self.newest_whole(thorough=not self._read_only)
    if step is None:
      return None
    return step, self.restore(step, abstract_state, iterator)

  def newest_whole(self, *, thorough: bool = True) -> int | None:
    """Returns the newest undamaged step; None where nothing is saved yet.

    Args:
      thorough: hashes every file; otherwise only sizes are compared.

    Raises:
      InputError: there are checkpoints, and all are damaged.
    """
    step = checkpoint_integrity.NONE
    if jax.process_index() == 0:
      step = checkpoint_integrity.newest_whole(
        self._workdir, thorough=thorough, read_only=self._read_only
      )
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == checkpoint_integrity.ALL_DAMAGED:
      raise InputError(
        f"every checkpoint of {self._workdir} is damaged: put a copy of one "
        f"into {self._folder}, or train in another --workdir."
      )
    if not self._read_only:
      self._manager.reload()
    return None if step == checkpoint_integrity.NONE else step

  def close(self) -> None:
    """Waits for the current save and frees the manager.

    Raises:
      InputError: the last save cannot be written.
    """
    if self._failed:  # Reported already: the manager would raise it again.
      return
    self.wait()
    self._manager.close()
    if not self._read_only and jax.process_index() == 0:
      _remove(self._folder / _OLD)

  def _write_file_list(self) -> None:
    # Orbax calls this when all is written, and renames the folder afterwards.
    checkpoint_integrity.write(
      next(self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"))
    )

  def _score(self, metrics: Mapping[str, float]) -> float:
    value = metrics[self._best.removeprefix("-")]
    return -value if self._best.startswith("-") else value

  def check_shapes(self, step: int, abstract_state: PyTree) -> None:
    """Raises an InputError where the arrays at `step` have other shapes."""
    saved = _shapes(self._manager.item_metadata(step).state)
    expected = _shapes(abstract_state)
    wrong = [
      name
      for name in {**expected, **saved}
      if expected.get(name) != saved.get(name)
    ]
    if wrong:
      name = wrong[0]
      raise InputError(
        f"checkpoint {step} of {self._workdir} is of other networks: {name} is "
        f"{saved.get(name, 'missing')} in it and "
        f"{expected.get(name, 'missing')} here ({len(wrong)} differ): use the "
        "config it was trained with."
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      messages = _messages(error)
      reason = next((text for text in _FULL if text in messages), None)
      if reason is None:
        raise
      self._failed = True
      steps = checkpoint_integrity.steps(self._workdir)
      kept = [step for step in steps if step != self._saving]
      rest = f"step {kept[-1]} is kept" if kept else "nothing was saved before"
      raise InputError(
        f"checkpoint {self._saving} cannot be written to {self._folder} "
        f"({reason}): {rest}; free some space and run the same command again."
      ) from error


def _messages(error: BaseException | None) -> str:
  """Joins the messages of an error and of all its causes."""
  messages = []
  while error is not None:
    messages.append(str(error))
    error = error.__cause__ or error.__context__
  return " ".join(messages)


def _remove(folder: pathlib.Path) -> None:
  if folder.exists():
    shutil.rmtree(folder)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }


def _about(workdir: pathlib.Path, step: int) -> dict[str, Any]:
  """Returns the step, and the record of the run where there is one."""
  has_record = (workdir / "run.json").exists()
  record = read_record(workdir) if has_record else {}
  kept = ("stage", "config", "versions", "code")
  return {"step": step, **{key: record.get(key) for key in kept}}


def adopt(
  workdir: pathlib.Path, source: pathlib.Path, abstract_state: PyTree
) -> None:
  """Copies the newest undamaged checkpoint of another run into a new one.

  Args:
    workdir: of the new run; where it has a checkpoint, nothing is done.
    source: the other run.
    abstract_state: shapes that the copy must have.

  Raises:
    InputError: `source` has no checkpoint, or one of other shapes.
  """
  own = Checkpoints(workdir, read_only=True)
  if own.steps() or any(workdir.glob("damaged/*")):
    return
  other = Checkpoints(source, read_only=True)
  step = other.newest_whole()
  if step is None:
    raise InputError(f"{source} has no checkpoint: train it first.")
  other.check_shapes(step, abstract_state)
  if jax.process_index() == 0:
    folder = pathlib.Path(workdir) / "checkpoints"
    # An interrupted copy is deleted like an interrupted save.
    part = folder / f"{step}.orbax-checkpoint-tmp"
    _remove(part)
    shutil.copytree(pathlib.Path(source) / "checkpoints" / str(step), part)
    part.rename(folder / str(step))
    print(f"continues from step {step} of {source}.")
  multihost_utils.sync_global_devices("checkpoint adopted")


def abstract(state: PyTree, shardings: PyTree) -> PyTree:
  """Returns the shapes, dtypes and shardings of a state, for `restore`."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    state,
    shardings,
  )


def write_record(workdir: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes run.json, the description of a run, whole or not at all."""
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
      f"{workdir} is not a training run (it has no run.json): name the "
      "--workdir of a finished `python -m pir_jax.train`."
    )
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise InputError(f"{path} is damaged ({error}): train again.") from error
