"""A process that prepares clips, one after the other, for another process.

It reads a request a line from its standard input and answers a line each, both
JSON. Whatever kills it, be it a codec or the system for want of memory, costs
the clip it was at; when the other process is gone, it ends at once.
"""

import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from pir_jax import assets

# One thread whatever the machine: XLA sums in another order with another
# number of threads, and a clip's bytes must not depend on who prepares it.
SINGLE = {
  "NPROC": "1",
  "OMP_NUM_THREADS": "1",
  "OPENBLAS_NUM_THREADS": "1",
  "JAX_PLATFORMS": "cpu",
}


_RAISED = re.compile(r"[\w.]+(Error|Exception|Exit)\b")
_SHOWN = 40  # Last lines of a process that ended.
COMMAND = (sys.executable, "-m", "pir_jax.preparation.batch_worker")


class Answer(NamedTuple):
  """The answer to a request.

  Attributes:
    value: the result; None where it failed.
    reason: why it failed, a sentence; "" where it did not.
  """

  value: Any
  reason: str


class Worker:
  """Starts such a process and asks it."""

  def __init__(self, command: Sequence[str] = COMMAND):
    """Starts nothing yet: the process begins with the first request.

    Args:
      command: that answers in the same way.
    """
    self._command = list(command)
    self._process = None
    self._errors = None

  def ask(self, request: dict) -> Answer:
    """Has one request done; a process that dies is a failure too."""
    if self._process is None:
      self._start()
    process = self._process
    try:
      process.stdin.write(json.dumps(request) + "\n")
      process.stdin.flush()
      line = process.stdout.readline()
    except (BrokenPipeError, ValueError):  # ValueError: closed by us.
      line = ""
    if line.endswith("\n"):
      return Answer(**json.loads(line))
    if self._process is not process:
      return Answer(None, "it was stopped.")
    return Answer(None, self._why_it_ended())

  def _start(self) -> None:
    home = str(pathlib.Path(__file__).parents[2])
    paths = [home, os.environ.get("PYTHONPATH", "")]
    # A file and not a pipe: nobody would empty a pipe while a clip is done.
    self._errors = tempfile.TemporaryFile()
    self._process = subprocess.Popen(
      self._command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      encoding="utf-8",
      env=os.environ
      | SINGLE
      | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        # Its own: what is compiled for several threads may sum otherwise.
        "JAX_COMPILATION_CACHE_DIR": str(
          assets.cache_directory() / "compilations-single"
        ),
      },
    )

  def _why_it_ended(self) -> str:
    """Returns why the process ended, in a sentence."""
    code = self._process.wait()
    self._errors.seek(0)
    lines = self._errors.read().decode(errors="replace").splitlines()
    self.close()
    if code == -signal.SIGKILL:
      return (
        "its process was killed, most likely for want of memory: try it again"
        " with fewer --workers."
      )
    if code < 0:
      return f"its process crashed ({signal.Signals(-code).name})."
    # A fault of ours: whoever mends it needs all of it.
    print("\n".join(lines[-_SHOWN:]), file=sys.stderr, flush=True)
    raised = [line for line in lines if _RAISED.match(line)]
    last = (raised or lines or ["it printed nothing"])[-1]
    return f"its process ended with code {code}: {last}"

  def close(self) -> None:
    """Ends the process, also in the middle of a clip."""
    process, self._process = self._process, None
    if process is not None:
      process.kill()
      process.wait()
      process.stdin.close()
      process.stdout.close()
      self._errors.close()


def answer(request: dict) -> Answer:
  """Does one request.

  Args:
    request: `do` is "prepare" or "check"; `video`; `settings`; for "prepare"
      also `output`, a folder or an address, and `cut` or None.
  """
  # After the environment is set: it is read when JAX is loaded.
  from pir_jax.data import hdtf
  from pir_jax.preparation import delivery, pipeline
  from pir_jax.types import InputError

  settings = pipeline.Settings.from_json(request["settings"])
  video, cut = request["video"], request["cut"]
  cut = cut and hdtf.Cut.from_json(cut)
  try:
    if not pathlib.Path(video).is_file():
      raise InputError(
        f"{video} is not on machine {os.uname().nodename}: check the name, and"
        " keep videos where all machines see them."
      )
    if request["do"] == "check":
      return Answer(pipeline.check(video, settings, cut=cut), "")
    output = request["output"]
    if not delivery.is_remote(output):
      parent = pathlib.Path(output).parent
      if not parent.is_dir():
        raise InputError(
          f"{parent} is not on machine {os.uname().nodename}: name a folder"
          " that all machines share, or an address such as gs://bucket/data."
        )
      made = pipeline.prepare(
        video,
        output,
        settings=settings,
        cut=cut,
        overwrite=True,
        with_page=False,
      )
    else:
      with tempfile.TemporaryDirectory() as folder:
        clip = pathlib.Path(folder, output.rpartition("/")[2])
        made = pipeline.prepare(
          video, clip, settings=settings, cut=cut, with_page=False
        )
        delivery.send(clip, output)
    return Answer(made.duration, "")
  except InputError as error:
    return Answer(None, str(error))
  except OSError as error:
    # A full disk, a folder that may not be written.
    return Answer(
      None, f"{error.strerror or error}: {error.filename or video}."
    )


def main() -> None:
  """Answers requests until the other process is gone."""
  # What libraries print must not get among the answers.
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The other process ends us.
  requests: queue.Queue[str] = queue.Queue()

  def listen() -> None:
    for line in sys.stdin:
      requests.put(line)
    os._exit(0)  # The other process is gone: nobody waits for an answer.

  threading.Thread(target=listen, daemon=True).start()
  # Loads JAX: it may take a while.
  from pir_jax.runtime import memory, progress

  progress.SHOWN = False
  memory.keep_pages()
  while True:
    done = answer(json.loads(requests.get()))
    answers.write(json.dumps(done._asdict()) + "\n")
    answers.flush()


if __name__ == "__main__":
  main()
