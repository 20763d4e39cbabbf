"""Prepares many clips at once: lists, names, shares out, resumes.

A task per clip. A finished clip is known by its key (see pipeline.key), so the
same command resumes a run that was stopped, however; the data set comes out the
same, byte for byte, whatever the order, the interruptions and the number of
workers. (The bytes may differ between kinds of processor.)
"""

import collections
import concurrent.futures
import os
import pathlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pir_jax import assets
from pir_jax.data import hdtf, manifest, text_file
from pir_jax.media import containers, video_reader
from pir_jax.preparation import batch_output, batch_worker, pipeline
from pir_jax.types import InputError

WORKER_BYTES = 2 * 2**30  # That a worker may come to need.
_ASSETS = ("face_detector", "face_mesh", "eye_mesh", "head_model")
_RESERVED = {manifest.FILE_NAME, batch_output.REPORT, batch_output.FAILED}


class Input(NamedTuple):
  """A video, or a piece of one, to prepare.

  Attributes:
    video: absolute path.
    cut: the piece of it; None is all.
  """

  video: pathlib.Path
  cut: hdtf.Cut | None = None

  @property
  def source(self) -> str:
    """Its name in the manifest."""
    return self.cut.source if self.cut else self.video.name


class Task(NamedTuple):
  """An input with its name in the data set.

  Attributes:
    name: of the clip's folder.
    input: what to prepare.
    sha256: of the video; "" where it cannot be read.
    key: of the result.
    reason: why it cannot even be tried, or "".
  """

  name: str
  input: Input
  sha256: str
  key: str
  reason: str = ""


class Outcome(NamedTuple):
  """The answer to a task."""

  task: Task
  answer: batch_worker.Answer


# Does requests, each (task, request), and yields outcomes as they come.
Runner = Callable[[Sequence[tuple[Task, dict]]], Iterator[Outcome]]


def list_videos(places: Sequence[str]) -> list[Input]:
  """Lists videos by name, in folders (and folders in them), or in lists.

  Args:
    places: each a video, a folder, or a .txt file with a place a line.

  Raises:
    InputError: a place does not exist or holds no video. A video that a list
      names may be missing: that is one clip's failure.
  """
  videos: dict[pathlib.Path, None] = {}
  for place in places:
    path = pathlib.Path(os.path.abspath(place))
    if not path.exists():
      raise InputError(f"{place} does not exist: check the name.")
    if path.is_dir():
      inside, others = containers.videos_in(path, hdtf.VIDEO_SUFFIXES)
      if others:
        names = ", ".join(str(other.relative_to(path)) for other in others[:9])
        more = ", ..." if len(others) > 9 else ""
        print(f"no videos, {len(others)} passed over: {names}{more}")
      if not inside:
        raise InputError(f"{place} holds no video: name another folder.")
    elif path.suffix.lower() == ".txt":
      lines = [line.strip() for line in text_file.read_lines(path)]
      # As written in the list, or beside the list.
      inside = [
        pathlib.Path(os.path.abspath(path.parent / line))
        for line in lines
        if line and not line.startswith("#")
      ]
      if not inside:
        raise InputError(f"{place} names no video: write one a line.")
    else:
      inside = [path]
    videos |= dict.fromkeys(inside)
  return [Input(path) for path in videos]


def list_pieces(annotations: str, places: Sequence[str]) -> list[Input]:
  """Lists HDTF's pieces of a folder's videos; prints which are missing.

  Raises:
    InputError: there is not one.
  """
  if len(places) != 1:
    raise InputError("Set --input=FOLDER once: the folder of HDTF's videos.")
  pieces = hdtf.read_annotations(annotations, os.path.abspath(places[0]))
  for sentence in pieces.skipped:
    print(f"left out: {sentence}")
  if pieces.missing:
    print(
      f"{len(pieces.missing)} videos are missing: {', '.join(pieces.missing)}"
    )
  if not pieces.cuts:
    raise InputError(
      f"{places[0]} holds no video that the annotations name: call them as"
      f" there, such as {(pieces.missing or ['RD_Radio1'])[0]}.mp4."
    )
  return [Input(video, cut) for video, cut in pieces.cuts]


def make_tasks(
  inputs: Sequence[Input],
  settings: pipeline.Settings,
  known: dict[str, batch_output.Known],
) -> list[Task]:
  """Names every input and its result.

  A clip is called as its video. Where several are called alike, in this run or
  in the data set, the first letters of the video's hash are added, and a number
  where even the contents are the same.
  """
  digest = settings.digest()
  videos = list(dict.fromkeys(each.video for each in inputs))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    hashes = dict(zip(videos, pool.map(_hash, videos), strict=True))
  plain = {each: _plain_name(each) for each in inputs}
  often = collections.Counter(name.casefold() for name in plain.values())
  taken: set[str] = set()
  tasks = []
  # In order of names and paths, whatever the order of the inputs.
  for each in sorted(
    inputs, key=lambda i: (plain[i], str(i.video), str(i.cut))
  ):
    sha256, reason = hashes[each.video]
    name = plain[each]
    there = known.get(name)
    # A clip of another video, not this one's prepared otherwise.
    other = there is not None and there.sha256 not in ("", sha256)
    if often[name.casefold()] > 1 or (other and sha256 and not each.cut):
      name = f"{name}-{sha256[:8] or 'unread'}"
    number, base = 1, name
    while name.casefold() in taken:
      number += 1
      name = f"{base}-{number}"
    taken.add(name.casefold())
    key = pipeline.key(sha256, digest, each.cut)
    tasks.append(Task(name, each, sha256, key, reason))
  return tasks


def _hash(video: pathlib.Path) -> tuple[str, str]:
  """Returns (SHA-256, "") of a video, or ("", why not)."""
  try:
    return video_reader.digest(video), ""
  except InputError as error:
    return "", str(error)
  except OSError as error:
    return "", f"{error.strerror or error}: {video}."


def _plain_name(each: Input) -> str:
  name = each.cut.name if each.cut else each.video.stem
  name = re.sub(r"[^\w.\-]+", "_", name).lstrip(".")[:100] or "clip"
  return f"{name}_clip" if name.casefold() in _RESERVED else name


def default_workers(num_tasks: int) -> int:
  """Returns as many as there are cores and memory for, and work."""
  cores = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else (os.cpu_count() or 1)
  )
  by_memory = _free_bytes() // WORKER_BYTES
  return max(1, min(cores, by_memory, num_tasks))


def _free_bytes() -> int:
  """Returns the memory free on the machine and in the container."""
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
  """Returns a runner that does requests in processes of this machine."""

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
    runner: see run_locally and ray.run.
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
    failures = [r for r in data.failures() if r["video"] not in paths]
    data.note_failures(failures)
    failed, start = [], time.monotonic()
    outcomes = _outcomes(todo, settings, data.clip, runner)
    for count, (task, answer) in enumerate(outcomes, 1):
      result = f"failed: {answer.reason}"
      if not answer.reason:
        result = f"{answer.value:.1f} s of video"
      print(
        f"[{count}/{len(todo)}] {task.name}: {result}"
        f" ({time.monotonic() - start:.0f} s since the start)",
        flush=True,
      )
      if answer.reason:
        failed.append(Outcome(task, answer))
        failures.append(
          {
            "name": task.name,
            "video": str(task.input.video),
            "sha256": task.sha256,
            "reason": answer.reason,
          }
        )
        data.note_failures(failures)
    data.describe()
    print(
      f"{len(tasks)} clips: {len(tasks) - len(todo)} were done before,"
      f" {len(todo) - len(failed)} prepared now, {len(failed)} failed."
    )
  return failed


def check_all(
  inputs: Sequence[Input], settings: pipeline.Settings, runner: Runner
) -> int:
  """Prints the report on every clip; returns how many are unusable."""
  tasks = make_tasks(inputs, settings, {})
  bad = 0
  for task, answer in _outcomes(tasks, settings, None, runner):
    if answer.reason:
      bad += 1
      print(f"{task.name}: cannot be used: {answer.reason}\n", flush=True)
    else:
      report, rejected = answer.value
      bad += rejected
      print(f"{task.name} ({task.input.video})\n{report}\n", flush=True)
  return bad


def _outcomes(
  tasks: Sequence[Task],
  settings: pipeline.Settings,
  place: Callable[[str], str] | None,
  runner: Runner,
) -> Iterator[Outcome]:
  """Yields every task's outcome, of those that cannot be tried first.

  Args:
    tasks: to be done.
    settings: for every clip.
    place: of a clip by its name; None only checks.
    runner: of the requests.
  """
  requests = []
  for task in tasks:
    if task.reason:
      yield Outcome(task, batch_worker.Answer(None, task.reason))
      continue
    request = {
      "do": "prepare" if place else "check",
      "video": str(task.input.video),
      "cut": task.input.cut and task.input.cut.to_json(),
      "settings": settings.to_json(),
      "output": place and place(task.name),
    }
    requests.append((task, request))
  if not requests:
    return
  # Once, before workers that would all fetch them at the same time.
  for name in _ASSETS:
    if name != "head_model" or settings.face_model is None:
      assets.fetch(name)
  yield from runner(requests)


def _left(
  tasks: list[Task], data: batch_output.Collection, known, overwrite: bool
) -> list[Task]:
  """Returns the tasks to do; renames clips whose videos were renamed."""
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
        f"{data.clip(task.name)} exists and is no prepared clip: choose"
        " another folder for the data set."
      )
    elif task.key in strays and not data.remote:
      data.adopt(strays.pop(task.key), task.name, task.input.source)
      continue
    left.append(task)
  if stale and not overwrite:
    raise InputError(
      f"{data.place} holds {len(stale)} of these clips, such as {stale[0]},"
      " prepared with other settings or by another version: add --overwrite or"
      " choose another folder."
    )
  return left
