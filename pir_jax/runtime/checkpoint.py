"""Checkpoints: the state and the place in the data, whole or not there.

A folder `checkpoints/STEP` holds three items: `state` (arrays), `data` (the
place in the data) and `about` (step, config and versions). What is found to be
damaged is moved to `damaged/`, never deleted.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
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

from pir_jax.runtime import checkpoint_files, checkpoint_integrity
from pir_jax.types import InputError

_ITERATOR = "iterator.json"
_OLD = "old"  # Replaced checkpoints go there whole, and then away.
# How file systems, and tensorstore for them, say that nothing more can be kept.
_FULL = tuple(
  os.strerror(number)
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
)


class Checkpoints:
  """The numbered checkpoints of one run directory.

  A checkpoint is written beside its final name, sealed with a list of its
  files, and renamed when it is complete, so that an interrupted save leaves
  none. Older ones go only when a newer one is complete. Every process of a
  cluster must call the same methods in the same order; they share one disk.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    keep: int = 2,
    best: str = "",
    read_only: bool = False,
  ):
    """Opens the checkpoints, and clears away what a stopped save left.

    Args:
      workdir: of the run.
      keep: newest checkpoints kept.
      best: held-out metric of which the best checkpoint is kept besides; the
        highest is best, or the lowest after a minus ("psnr", "-lpips").
      read_only: write, move and delete nothing: another process may be
        training this run.
    """
    self._workdir = pathlib.Path(workdir).resolve()
    self._folder = self._workdir / "checkpoints"
    self._best = best
    self._read_only = read_only
    self._saving: int | None = None
    self._failed = False
    self._shelf = checkpoint_files.Shelf(self._workdir, read_only=read_only)
    if not read_only and jax.process_index() == 0:
      _remove(self._folder / _OLD)
      self._shelf.look_over()
    _together("checkpoints opened")
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
      # Moved first: a deletion that is interrupted must not leave half of one.
      todelete_subdir=_OLD,
      best_fn=self._score if self._best else None,
      preservation_policy=AnyPreservationPolicy(policies),
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._seal,
        # On a full disk the save might wait for a folder that never comes.
        create_directories_asynchronously=False,
      ),
    )

  def latest(self) -> int | None:
    """The newest step saved; its files may still turn out to be damaged."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step with the best held-out metric; None where none has it."""
    return self._manager.best_step() if self._best else None

  def steps(self) -> list[int]:
    """All steps saved, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: PyTree,
    iterator: Any,
    metrics: Mapping[str, float] | None = None,
    wait: bool = False,
  ) -> None:
    """Saves behind the caller's back; a step that is there already is kept.

    Args:
      step: optimiser steps done.
      state: whose arrays may be given away as soon as this returns.
      iterator: of the data; `get_state` tells its place in JSON values.
      metrics: on held-out data, at this step.
      wait: return only when the checkpoint is complete.

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
    """Waits for the save under way.

    Raises:
      InputError: it cannot be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
    self._saving = None

  def restore(
    self, step: int, abstract_state: PyTree, iterator: Any = None
  ) -> PyTree:
    """The state at `step`; `iterator`, when given, is wound on in place.

    Args:
      step: one that was saved.
      abstract_state: shapes, dtypes and shardings to restore onto.
      iterator: a grain iterator over the same data.

    Raises:
      InputError: the checkpoint is of networks of other sizes.
    """
    self.check_shapes(step, abstract_state)
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
    state = self._manager.restore(step, args=wanted).state
    if iterator is not None:
      place = self._shelf.path(step) / "data"
      iterator.set_state(json.loads(next(place.glob("*.json")).read_text()))
    return state

  def restore_newest(
    self, abstract_state: PyTree, iterator: Any = None
  ) -> tuple[int, PyTree] | None:
    """The newest checkpoint that is whole: its step and state.

    A damaged one is told of on stderr and moved to `damaged/`, so that its step
    can be saved again. None where the run has saved nothing yet.

    Args:
      abstract_state: see `restore`.
      iterator: see `restore`.

    Raises:
      InputError: there are checkpoints, and all are damaged.
    """
    step = self.newest_whole()
    if step is None:
      return None
    return step, self.restore(step, abstract_state, iterator)

  def newest_whole(self) -> int | None:
    """Its step; None where nothing was saved. See `restore_newest`.

    Raises:
      InputError: there are checkpoints, and all are damaged.
    """
    step = self._agree(self._shelf.newest_whole)
    if step == checkpoint_files.NONE_WHOLE:
      raise InputError(
        f"every checkpoint of {self._workdir} is damaged: put a copy of one "
        f"into {self._folder}, or train in another --workdir."
      )
    if not self._read_only:
      self._manager.reload()
    return None if step == checkpoint_files.NONE else step

  def close(self) -> None:
    """Waits for saves under way and frees the manager.

    Raises:
      InputError: the last save cannot be written.
    """
    if self._failed:  # Told already, and the manager would tell it again.
      return
    self.wait()
    self._manager.close()
    if not self._read_only and jax.process_index() == 0:
      _remove(self._folder / _OLD)

  def _seal(self) -> None:
    # Orbax calls this when all is written and before the folder gets its name.
    checkpoint_integrity.write(
      next(self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"))
    )

  def _score(self, metrics: Mapping[str, float]) -> float:
    value = metrics[self._best.removeprefix("-")]
    return -value if self._best.startswith("-") else value

  def _agree(self, choose: Callable[[], int]) -> int:
    """What process 0 chooses, in every process."""
    if jax.process_count() == 1:
      return choose()
    chosen = np.int32(choose() if jax.process_index() == 0 else 0)
    return int(multihost_utils.broadcast_one_to_all(chosen))

  def check_shapes(self, step: int, abstract_state: PyTree) -> None:
    """Raises an InputError where the arrays at `step` are of other shapes."""
    saved = _shapes(self._manager.item_metadata(step).state)
    wanted = _shapes(abstract_state)
    every = {**wanted, **saved}
    wrong = [name for name in every if wanted.get(name) != saved.get(name)]
    if wrong:
      name = wrong[0]
      raise InputError(
        f"checkpoint {step} of {self._workdir} is of other networks: {name} is "
        f"{saved.get(name, 'not there')} in it and "
        f"{wanted.get(name, 'not there')} here ({len(wrong)} differ): use the "
        "config that it was trained with."
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      said = next((text for text in _FULL if text in _all_said(error)), None)
      if said is None:
        raise
      self._failed = True
      kept = [step for step in self._shelf.steps() if step != self._saving]
      rest = f"step {kept[-1]} is kept" if kept else "nothing was saved before"
      raise InputError(
        f"checkpoint {self._saving} cannot be written to {self._folder} "
        f"({said}): {rest}; make room and give the same command again."
      ) from error


def _all_said(error: BaseException | None) -> str:
  said = []
  while error is not None:
    said.append(str(error))
    error = error.__cause__ or error.__context__
  return " ".join(said)


def _together(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


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
  """What the run is, as far as it is written down, at this step."""
  has_record = (workdir / "run.json").exists()
  record = read_record(workdir) if has_record else {}
  kept = ("stage", "config", "versions", "code")
  return {"step": step, **{key: record.get(key) for key in kept}}


def adopt(
  workdir: pathlib.Path, source: pathlib.Path, abstract_state: PyTree
) -> None:
  """Copies the newest whole checkpoint of another run into one without any.

  Args:
    workdir: of the run that has none; where it has some, nothing is done.
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
    # A copy that is cut short is cleared away like a save that is.
    part = folder / f"{step}.orbax-checkpoint-tmp"
    _remove(part)
    shutil.copytree(pathlib.Path(source) / "checkpoints" / str(step), part)
    part.rename(folder / str(step))
    print(f"goes on from step {step} of {source}.")
  _together("checkpoint adopted")


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
