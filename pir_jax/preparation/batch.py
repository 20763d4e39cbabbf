"""Many clips prepared at once: planned, shared out, gone on with.

A task per clip. A finished clip is known by its key (see preparation.key), so
a run that was stopped, however, is gone on with by the same command; the data
set comes out the same, byte for byte, whatever the order, the interruptions
and the number of workers. (The bytes may differ between kinds of processor.)
"""

import os
import pathlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pir_jax import assets
from pir_jax.preparation import batch_output, batch_worker, pipeline
from pir_jax.preparation.batch_tasks import Input, Task, make_tasks
from pir_jax.types import InputError

WORKER_BYTES = 2 * 2**30  # That a worker may come to need.
_ASSETS = ("face_detector", "face_mesh", "eye_mesh", "head_model")


class Outcome(NamedTuple):
  """What became of a task, see worker.Answer."""

  task: Task
  answer: batch_worker.Answer


# Does requests, each (task, request), and yields outcomes as they come.
Runner = Callable[[Sequence[tuple[Task, dict]]], Iterator[Outcome]]


def default_workers(num_tasks: int) -> int:
  """As many as there are cores and memory for, and work."""
  cores = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else (os.cpu_count() or 1)
  )
  by_memory = _free_bytes() // WORKER_BYTES
  return max(1, min(cores, by_memory, num_tasks))


def _free_bytes() -> int:
  """Memory that may be taken: of the machine, and of the container."""
  free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
  limit = pathlib.Path("/sys/fs/cgroup/memory.max")
  if limit.is_file() and (text := limit.read_text().strip()).isdigit():
    free.append(int(text))
  meminfo = pathlib.Path("/proc/meminfo")
  if meminfo.is_file():
    values = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    if values:
      free.append(1024 * int(values[1]))
  return min(free)


def run_locally(num_workers: int) -> Runner:
  """Does requests in processes of this machine."""

  def run(requests: Sequence[tuple[Task, dict]]) -> Iterator[Outcome]:
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for request in requests:
      waiting.put(request)
    workers = [
      batch_worker.Worker() for _ in range(min(num_workers, len(requests)))
    ]

    def serve(own: batch_worker.Worker) -> None:
      while True:
        try:
          task, request = waiting.get_nowait()
        except queue.Empty:
          return
        done.put(Outcome(task, own.ask(request)))

    for each in workers:
      threading.Thread(target=serve, args=(each,), daemon=True).start()
    try:
      for _ in requests:
        yield done.get()
    finally:
      for each in workers:
        each.close()

  return run


def request_of(
  task: Task, settings: pipeline.Settings, output: str | None
) -> dict:
  """What a worker is told; without an output it only checks."""
  return {
    "do": "prepare" if output else "check",
    "video": str(task.input.video),
    "cut": task.input.cut and task.input.cut.to_json(),
    "settings": settings.to_json(),
    "output": output,
  }


def prepare_all(
  inputs: Sequence[Input],
  output: str,
  settings: pipeline.Settings,
  runner: Runner,
  *,
  overwrite: bool = False,
) -> list[Outcome]:
  """Prepares what is not yet prepared; returns the outcomes of what failed.

  Args:
    inputs: videos or pieces.
    output: the data set, a folder or an address.
    settings: for every clip.
    runner: see run_locally and batch_ray.run.
    overwrite: replace clips that were prepared with other settings.

  Raises:
    InputError: the data set cannot be written, or holds clips of these videos
      that were prepared otherwise.
  """
  with batch_output.Collection(output) as data:
    known = data.clips()
    tasks = make_tasks(inputs, settings, known)
    todo = _left(tasks, data, known, overwrite)
    paths = {str(task.input.video) for task in tasks}
    failures = {
      (record["name"], record["video"]): record
      for record in data.failures()
      if record["video"] not in paths
    }
    failed = [
      Outcome(task, batch_worker.Answer(None, task.reason))
      for task in todo
      if task.reason
    ]
    for outcome in failed:
      print(f"{outcome.task.name}: failed: {outcome.task.reason}", flush=True)
      failures |= _record(outcome)
    todo = [task for task in todo if not task.reason]
    if todo:
      _fetch_assets(settings)
    requests = [
      (task, request_of(task, settings, data.clip(task.name))) for task in todo
    ]
    data.note_failures(failures.values())
    for outcome in _reported(requests, runner):
      if outcome.answer.reason:
        failed.append(outcome)
        failures |= _record(outcome)
        data.note_failures(failures.values())
    data.describe()
    made = len(todo) + sum(bool(task.reason) for task in tasks) - len(failed)
    print(
      f"{len(tasks)} clips: {len(tasks) - made - len(failed)} were done before,"
      f" {made} prepared now, {len(failed)} failed."
    )
  return failed


def _reported(requests, runner: Runner) -> Iterator[Outcome]:
  """Prints a line for every outcome, and passes it on."""
  start = time.monotonic()
  for count, outcome in enumerate(runner(requests) if requests else (), 1):
    said = outcome.answer.reason
    said = (
      f"failed: {said}" if said else f"{outcome.answer.value:.1f} s of video"
    )
    passed = time.monotonic() - start
    print(
      f"[{count}/{len(requests)}] {outcome.task.name}: {said}"
      f" ({passed:.0f} s since the start)",
      flush=True,
    )
    yield outcome


def _record(outcome: Outcome) -> dict[tuple[str, str], dict]:
  """A failure for failed.json, by its name and video."""
  task = outcome.task
  video = str(task.input.video)
  record = {
    "name": task.name,
    "video": video,
    "sha256": task.sha256,
    "reason": outcome.answer.reason,
  }
  return {(task.name, video): record}


def _left(
  tasks: list[Task], data: batch_output.Collection, known, overwrite: bool
) -> list[Task]:
  """Tasks that are not done; what was renamed is renamed."""
  left, stale = [], []
  wanted = {task.name for task in tasks}
  strays = {
    there.key: name
    for name, there in known.items()
    if there.key and name not in wanted
  }
  for task in tasks:
    there = known.get(task.name)
    if there is not None and there.key == task.key:
      continue
    if task.reason:
      pass
    elif there is not None:
      stale.append(task.name)
    elif data.is_taken(task.name):
      raise InputError(
        f"{data.clip(task.name)} is there and is no prepared clip: choose"
        " another folder for the data set."
      )
    elif task.key in strays and not data.remote:
      data.adopt(strays.pop(task.key), task.name, task.input.source)
      continue
    left.append(task)
  if stale and not overwrite:
    raise InputError(
      f"{data.place} holds {len(stale)} of these clips, such as {stale[0]},"
      " prepared with other settings or by another version: say --overwrite or"
      " choose another folder."
    )
  return left


def _fetch_assets(settings: pipeline.Settings) -> None:
  """Once, before workers that would all fetch them at the same time."""
  for name in _ASSETS:
    if name != "head_model" or settings.face_model is None:
      assets.fetch(name)


def check_all(
  inputs: Sequence[Input], settings: pipeline.Settings, runner: Runner
) -> int:
  """Prints what a preparation would find; returns how many are unusable."""
  tasks = make_tasks(inputs, settings, {})
  _fetch_assets(settings)
  bad = 0
  for task in tasks:
    if task.reason:
      bad += 1
      print(f"{task.name}: unusable: {task.reason}\n", flush=True)
  requests = [
    (task, request_of(task, settings, None))
    for task in tasks
    if not task.reason
  ]
  for task, said in runner(requests) if requests else ():
    if said.reason:
      bad += 1
      print(f"{task.name}: unusable: {said.reason}\n", flush=True)
    else:
      report, rejected = said.value
      bad += rejected
      print(f"{task.name} ({task.input.video})\n{report}\n", flush=True)
  return bad
