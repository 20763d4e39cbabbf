"""What an output was made of, in a file beside it: `out.json` of `out.mp4`."""

import contextlib
import datetime
import json
import pathlib
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from pir_jax.media import video_reader, whole_file
from pir_jax.types import InputError

KIND = "pir_jax run card"
_LIBRARIES = ("pir_jax", "jax", "numpy", "av", "c2pa-python")

Path = str | pathlib.Path


def place_of(output: Path) -> pathlib.Path:
  """Returns the path of an output's card."""
  return pathlib.Path(output).with_suffix(".json")


def check(output: Path) -> None:
  """Checks that a card can be written, before the work and not after it.

  Raises:
    InputError: there is a file of that name which is no card, or that of
      another output which is there.
  """
  path = place_of(output)
  whole_file.check(path, (".json",))
  card = read(path)
  name = card and output_of(card)["name"]
  taken = (
    name != pathlib.Path(output).name and (path.parent / f"{name}").exists()
  )
  if path.exists() and (card is None or taken):
    raise InputError(
      f"{path} is another file, and the run card of {output} would replace it: "
      "move it, or choose another output."
    )


def read(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns a card; None where the file is none."""
  try:
    card = json.loads(path.read_bytes())
  except (OSError, ValueError):
    return None
  return card if isinstance(card, dict) and card.get("kind") == KIND else None


def output_of(card: dict[str, Any]) -> dict[str, str]:
  """Returns the name and the sha256 of the output that a card describes."""
  output = card.get("output")
  output = output if isinstance(output, dict) else {}
  return {name: str(output.get(name, "")) for name in ("name", "sha256")}


@contextlib.contextmanager
def written(output: Path) -> Iterator[pathlib.Path]:
  """Yields a hidden name; the card is there when the body ends."""
  with whole_file.written(place_of(output)) as hidden:
    yield hidden


def write(
  hidden: pathlib.Path, output: pathlib.Path, name: str, content: dict[str, Any]
) -> None:
  """Writes a card under a hidden name.

  Args:
    hidden: from `written`.
    output: file of the finished output, whose hash is recorded.
    name: that it will have.
    content: inputs, model, settings, marks, figures.
  """
  card = {
    "kind": KIND,
    "created": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    "output": {"name": name, "sha256": video_reader.digest(output)},
    **content,
    "versions": versions(),
  }
  hidden.write_text(json.dumps(card, indent=2) + "\n")


def versions() -> dict[str, str]:
  """Returns the versions of this package and of what it stands on."""
  result = {"python": platform.python_version()}
  for name in _LIBRARIES:
    try:
      result[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      result[name] = "not installed"
  return result
