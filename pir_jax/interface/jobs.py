"""A queue of jobs: one child process at a time, states and logs on disk.

A job is a list of commands, which run one after another. What is on disk shows
the same after a reload of the page and after a restart of its server, at whose
end the child ends too (see `child`); what waited then goes on the next time.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from pir_jax.interface import job_log
from pir_jax.types import InputError

GRACE = 60.0  # Seconds that a stopped command has to save what it has.
_MOST_WAITING = 20
WAITING, RUNNING = "waiting", "running"
DONE, FAILED, STOPPED = "done", "failed", "stopped"
ACTIVE = (WAITING, RUNNING)


@dataclasses.dataclass(kw_only=True, slots=True)
class Job:
  """One entry of the queue.

  Attributes:
    name: of its files; names sort by age.
    person: whom it is for.
    kind: what it does, such as "train".
    title: the same for a reader.
    commands: names and arguments of modules of pir_jax.
    note: words that whoever made the job wants back.
    state: one of the above.
    step: commands that are done.
    created, started, ended: seconds since the epoch; 0 before.
    sentence: why it failed or stopped.
  """

  name: str
  person: str
  kind: str
  title: str
  commands: list[list[str]]
  note: str = ""
  state: str = WAITING
  step: int = 0
  created: float = 0.0
  started: float = 0.0
  ended: float = 0.0
  sentence: str = ""


def command_line(command: list[str]) -> list[str]:
  """Returns the arguments with which a command of pir_jax is started."""
  name, *arguments = command
  return [sys.executable, "-u", "-m", f"pir_jax.{name}", *arguments]


class Queue:
  """Runs jobs in the order in which they were added."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    to_line: Callable[[list[str]], list[str]] = command_line,
    grace: float = GRACE,
    on_end: Callable[[Job], None] = lambda job: None,
  ):
    """Reads what is on disk; `start` goes on with what waits.

    Args:
      folder: of states and logs; no other queue may have it.
      to_line: turns a job's command into the arguments of a process.
      grace: seconds that a stopped command has.
      on_end: called with every job that ended, before the next begins.
    """
    self._folder, self._to_line, self._grace = folder, to_line, grace
    self._on_end = on_end
    self._folder.mkdir(parents=True, exist_ok=True)
    self._changed = threading.Condition()
    self._jobs = {job.name: job for job in _read(folder)}
    self._leash: subprocess.Popen | None = None
    self._stopping: set[str] = set()
    self._closed = False
    for job in self._jobs.values():
      if job.state == RUNNING:
        job.state, job.ended = STOPPED, time.time()
        job.sentence = "The server ended meanwhile: start it again."
        self._save(job)
    self._thread = threading.Thread(target=self._run, daemon=True)

  def start(self) -> None:
    """Runs what waits, and what is added."""
    self._thread.start()

  def add(
    self,
    person: str,
    kind: str,
    title: str,
    commands: list[list[str]],
    note: str = "",
  ) -> Job:
    """Adds a job at the end; see `Job`.

    Raises:
      InputError: the same is under way already, or too much is.
    """
    with self._changed:
      active = [job for job in self._jobs.values() if job.state in ACTIVE]
      if any((job.person, job.kind) == (person, kind) for job in active):
        raise InputError(f"{title} is under way already: wait for it.")
      if len(active) > _MOST_WAITING:
        raise InputError(f"{len(active)} jobs wait already: stop some of them.")
      now = time.time()
      job = Job(
        name=f"{time.time_ns():020d}-{secrets.token_hex(4)}",
        person=person,
        kind=kind,
        title=title,
        commands=commands,
        note=note,
        created=now,
      )
      self._jobs[job.name] = job
      self._save(job)
      self._changed.notify_all()
      return dataclasses.replace(job)

  def jobs(self, person: str | None = None) -> list[Job]:
    """Returns all jobs, or those of a person, the oldest first."""
    with self._changed:
      return [
        dataclasses.replace(job)
        for _, job in sorted(self._jobs.items())
        if person in (None, job.person)
      ]

  def log(self, job: Job) -> pathlib.Path:
    """Returns where a job's log is."""
    return self._folder / f"{job.name}.log"

  def stop(self, name: str) -> None:
    """Stops a job that waits or runs; the queue goes on with the next."""
    with self._changed:
      job = self._jobs.get(name)
      if job is None or job.state not in ACTIVE:
        return
      if job.state == WAITING:
        job.state, job.ended = STOPPED, time.time()
        job.sentence = "Stopped before it began."
        self._save(job)
      else:
        self._stopping.add(name)
        self._let_go()
      self._changed.notify_all()

  def forget(self, person: str) -> None:
    """Stops a person's jobs, and deletes their states and logs."""
    for job in self.jobs(person):
      self.stop(job.name)
    with self._changed:
      self._changed.wait_for(
        lambda: all(job.state not in ACTIVE for job in self._of(person)),
        timeout=self._grace + 10,
      )
      for job in self._of(person):
        del self._jobs[job.name]
        self.log(job).unlink(missing_ok=True)
        self._file(job).unlink(missing_ok=True)

  def wait(self, name: str, timeout: float) -> Job:
    """Waits until a job ends, at most so many seconds; returns it."""
    with self._changed:
      self._changed.wait_for(
        lambda: self._jobs[name].state not in ACTIVE, timeout
      )
      return dataclasses.replace(self._jobs[name])

  def close(self) -> None:
    """Stops the job that runs, and runs no other."""
    with self._changed:
      self._closed = True
      self._let_go()
      self._changed.notify_all()
    self._thread.join()

  def _of(self, person: str) -> list[Job]:
    return [job for job in self._jobs.values() if job.person == person]

  def _let_go(self) -> None:
    if self._leash is not None:
      self._leash.stdin.close()

  def _run(self) -> None:
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._closed or self._next())
        if self._closed:
          return
        job = self._next()
        job.state, job.started = RUNNING, time.time()
        self._save(job)
      try:
        state, sentence = self._work(job)
      except OSError as error:  # No room for its log.
        state, sentence = FAILED, f"It could not be started: {error}."
      with self._changed:
        job.state, job.sentence, job.ended = state, sentence, time.time()
        self._stopping.discard(job.name)
        self._save(job)
        self._changed.notify_all()
      self._on_end(dataclasses.replace(job))

  def _next(self) -> Job | None:
    waiting = (name for name, j in self._jobs.items() if j.state == WAITING)
    return self._jobs.get(min(waiting, default=""))

  def _work(self, job: Job) -> tuple[str, str]:
    """Runs a job's commands; returns its last state, and why."""
    for command in job.commands:
      with open(self.log(job), "ab") as log:
        with self._changed:
          if self._closed or job.name in self._stopping:
            return STOPPED, "Stopped."
          self._leash = subprocess.Popen(
            [
              *(sys.executable, "-m", "pir_jax.interface.child"),
              *(str(self._grace), *self._to_line(command)),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Else a log may get a terminal's bars in place of lines.
            env={**os.environ, "FORCE_COLOR": ""},
          )
        code = self._leash.wait()
      with self._changed:
        self._let_go()
        self._leash = None
        # A command that saved and stopped may end as if it were done.
        if self._closed or job.name in self._stopping:
          return STOPPED, "Stopped."
        if code == 0:
          job.step += 1
          self._save(job)
          continue
      lines = job_log.read(self.log(job))
      return FAILED, job_log.reason(lines, command[0], code)
    return DONE, ""

  def _file(self, job: Job) -> pathlib.Path:
    return self._folder / f"{job.name}.json"

  def _save(self, job: Job) -> None:
    part = self._folder / f".{job.name}.part"
    # A full disk must not end the queue.
    with contextlib.suppress(OSError):
      part.write_text(json.dumps(dataclasses.asdict(job), indent=1))
      part.replace(self._file(job))


def _read(folder: pathlib.Path) -> list[Job]:
  """Reads the states on disk; what is damaged is left out."""
  jobs = []
  for path in sorted(folder.glob("*.json")):
    try:
      jobs.append(Job(**json.loads(path.read_text())))
    except (ValueError, TypeError):
      continue
  return jobs
