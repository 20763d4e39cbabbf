"""Reads progress, loss curves and the reason of a failure off a job's log.

The log holds what the commands print; every line is one sentence of theirs.
"""

import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

_MOST = 1 << 20  # Bytes of a log that are read: its end.
_FEW = 8000  # Characters of it that a page shows.
_STEPS = re.compile(r"(\w+) (\d+)/(\d+)  (.*)")
_FRAMES = re.compile(r"([\w ]+): (\d+) of (\d+) frames, (\d+) s$")
_LOSS = re.compile(r"\bloss (\S+)")
_LEFT = re.compile(r"(\d+) s left$")


class Progress(NamedTuple):
  """How far the newest part of a job is.

  Attributes:
    sentence: what is being done.
    share: of that part, 0 to 1; None where it is not known.
    seconds_left: of that part; None where it is not known.
  """

  sentence: str
  share: float | None = None
  seconds_left: float | None = None


def read(path: pathlib.Path) -> list[str]:
  """Reads the lines of a log; none where there is no log yet."""
  try:
    with open(path, "rb") as file:
      file.seek(max(0, path.stat().st_size - _MOST))
      text = file.read()
  except FileNotFoundError:
    return []
  return text.decode("utf-8", "replace").splitlines()


def progress(lines: list[str]) -> Progress:
  """Returns how far a job is, from the newest line that shows it."""
  for line in reversed(lines):
    if match := _STEPS.match(line):
      stage, step, total = match[1], int(match[2]), int(match[3])
      left = _LEFT.search(line)
      sentence = f"{stage}: step {step} of {total}"
      seconds = float(left[1]) if left else None
      return Progress(sentence, step / max(1, total), seconds)
    if match := _FRAMES.match(line):
      count, total, taken = map(int, match.groups()[1:])
      share = count / max(1, total)
      sentence = f"{match[1]}: frame {count} of {total}"
      return Progress(sentence, share, taken * (1 - share) / max(share, 1e-6))
    if line.strip() and not line.startswith("$ "):
      return Progress(line.strip().rstrip("."))
  return Progress("starting")


def curves(lines: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
  """Returns (step, loss) of each stage that was trained, in order of steps.

  A step that was taken again after a resume counts once, the last time.
  """
  points: dict[str, dict[int, float]] = {}
  for line in lines:
    match, loss = _STEPS.match(line), _LOSS.search(line)
    if match and loss:
      points.setdefault(match[1], {})[int(match[2])] = float(loss[1])
  return {stage: sorted(values.items()) for stage, values in points.items()}


def reason(lines: list[str], command: str, code: int) -> str:
  """Returns the sentence with which a command failed.

  Args:
    lines: of the log.
    command: its name, such as "train", with which its sentence begins.
    code: its exit code.
  """
  command = command.rpartition(".")[2]
  for line in reversed(lines):
    if line.startswith(f"{command}: "):
      return line.removeprefix(f"{command}: ")
  if code == 128 + 9:
    return (
      f"The system ended `{command}`, most likely for want of memory: close "
      "other programs and try again."
    )
  return (
    f"`{command}` ended with a fault of its own (exit code {code}): the log "
    "has the details."
  )


def tail(lines: list[str]) -> str:
  """Returns the end of a log for a page."""
  return "\n".join(lines)[-_FEW:]
