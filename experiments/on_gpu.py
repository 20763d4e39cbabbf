"""Adapts the paper-size networks to one clip on an accelerator, and times them.

Command: python -m experiments.on_gpu --data=data/me --output=on_gpu
  [--minutes=12] [--variant=NAME]
or `make gpu DATA=data/me`. Needs a prepared clip and the assets (`python -m
pir_jax.assets fetch`), and nothing from outside: prepare on a machine with a
network, and take the cache folder along (PIR_JAX_CACHE).
Prints its plan, then trains the three stages for a share of the time each,
measures the held-out frames, and times the way of a frame at batches of 1, 8
and 32 in both precisions. A task that its share does not suffice for is
stopped: a training saves and ends as when it is preempted, a timing is left
out and named. `section.md` in the output is what RESULTS can take.
The speech encoder is Whisper tiny.en, since wav2vec 2.0 cannot be fetched; the
decoder is the paper's.
"""

import datetime
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from absl import flags

from pir_jax.data import manifest
from pir_jax.runtime import app
from pir_jax.types import InputError

_DATA = flags.DEFINE_string("data", None, "Prepared clip.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for runs and figures.")
_MINUTES = flags.DEFINE_float("minutes", 12.0, "For everything.", 0.1)
_VARIANT = flags.DEFINE_string(
  "variant", "", "Of the experiments; none is the paper's size."
)
_BATCHES = flags.DEFINE_list("batches", ["1", "8", "32"], "Of the timings.")
_GRACE = 30.0  # Seconds in which a stopped task saves.
_EXPERIMENTS = pathlib.Path(__file__).parent
_STAGES = {"expression": 1.0, "triplane": 4.0, "inpainting": 4.0}
_HELD_OUT, _TIMING = 1.5, 0.7
# What a training prints of its throughput, a benchmark of itself and frames.
_THROUGHPUT = re.compile("s/step.*examples/s")
_WHOLE = re.compile("^inpainting on|images a second$|in use at the most")


class Task(NamedTuple):
  """One command of the plan.

  Attributes:
    name: for people, and of its log.
    share: of the time, in parts of the sum of all.
    arguments: of Python.
  """

  name: str
  share: float
  arguments: tuple[str, ...]


def plan(
  data: str, output: pathlib.Path, variant: str, batches: list[str]
) -> list[Task]:
  """Lists what is run, in order."""
  suffix = f":{variant}" if variant else ""

  def config(stage):
    return f"--config={_EXPERIMENTS / stage}.py{suffix}"

  tasks = []
  for stage, share in _STAGES.items():
    arguments = [
      config(stage),
      f"--config.data.path={data}",
      f"--workdir={output / 'run' / stage}",
      "--config.loop.log_every=20",
    ]
    if stage == "expression":
      arguments.append("--config.stage.encoder=whisper")
      arguments.append("--config.stage.encoder_path=")
    tasks.append(
      Task(f"train {stage}", share, ("-m", "pir_jax.train", *arguments))
    )
  tasks.append(
    Task(
      "held-out frames",
      _HELD_OUT,
      (
        *("-m", "pir_jax.evaluate"),
        f"--model={output / 'run'}",
        f"--data={data}",
        f"--output={output / 'report'}",
      ),
    )
  )
  for dtype in ("bfloat16", "float32"):
    for batch in batches:
      arguments = f"--batch={batch}", f"--dtype={dtype}", "--nopipeline"
      benchmark = "-m", "pir_jax.benchmark", "inpainting", config("inpainting")
      tasks.append(
        Task(
          f"{dtype}, batch {batch}",
          _TIMING,
          (*benchmark, *arguments, "--repeats=5"),
        )
      )
  return tasks


def run(task: Task, seconds: float, log: pathlib.Path) -> str:
  """Runs a task for at most so long; returns what became of it."""
  with log.open("w") as file:
    process = subprocess.Popen(
      [sys.executable, *task.arguments],
      stdout=file,
      stderr=subprocess.STDOUT,
    )
    try:
      code = process.wait(seconds)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGTERM)
      try:
        process.wait(_GRACE)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
      return "stopped"
  return "done" if code == 0 else f"failed ({code})"


def section(output: pathlib.Path, outcomes: dict[str, str]) -> str:
  """Writes up what the tasks printed."""
  lines = [f"## On an accelerator, {datetime.date.today():%d %B %Y}", ""]
  for name, outcome in outcomes.items():
    text = _log(output, name).read_text()
    lines += [f"{name}: {outcome}", ""]
    if name.startswith("train"):
      paced = [line for line in text.splitlines() if _THROUGHPUT.search(line)]
      kept = paced[-1:]
    elif name.startswith("held-out"):
      kept = [line for line in text.splitlines() if line.strip()]
    else:
      kept = [line for line in text.splitlines() if _WHOLE.search(line)]
    if outcome.startswith("failed"):
      kept = text.splitlines()[-3:]
    if kept:
      lines += ["```", *kept, "```", ""]
  return "\n".join(lines)


def _log(output: pathlib.Path, name: str) -> pathlib.Path:
  return output / f"{name.replace(', ', '-').replace(' ', '-')}.log"


def main() -> None:
  """Runs the command."""
  data, output = app.required(_DATA, _OUTPUT)
  manifest.load_manifest(pathlib.Path(data))  # A wrong folder fails at once.
  output = pathlib.Path(output)
  if output.exists():
    raise InputError(f"{output} is there already: choose another --output.")
  output.mkdir(parents=True)
  end = time.monotonic() + 60 * _MINUTES.value
  tasks = plan(data, output, _VARIANT.value, _BATCHES.value)
  left = sum(task.share for task in tasks)
  for task in tasks:
    seconds = 60 * _MINUTES.value * task.share / left
    line = shlex.join(["python", *task.arguments])
    print(f"{task.name:20} at most {seconds:5.0f} s  $ {line}")
  outcomes = {}
  for task in tasks:
    # What one leaves, the others share.
    seconds = max(1.0, (end - time.monotonic()) * task.share / left)
    left -= task.share
    start = time.monotonic()
    outcomes[task.name] = run(task, seconds, _log(output, task.name))
    spent = time.monotonic() - start
    print(f"{task.name:20} {outcomes[task.name]}, {spent:.0f} s", flush=True)
    (output / "section.md").write_text(section(output, outcomes))
  print((output / "section.md").read_text())
  if any(outcome.startswith("failed") for outcome in outcomes.values()):
    raise InputError(f"a task failed: read its .log in {output}.")


if __name__ == "__main__":
  app.run(main)
