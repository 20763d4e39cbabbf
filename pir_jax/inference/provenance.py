"""What an output was made of and with: for its manifest and its run card."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from pir_jax.inference import ready
from pir_jax.inference.source import Source
from pir_jax.marks import keys, manifest, marking, run_card
from pir_jax.media import video_reader

Path = str | pathlib.Path
# The finished file, under a name of its own yet, and figures of the run.
Finish = Callable[[pathlib.Path, dict[str, Any]], None]
_PIPE = "standard input"


def check(output: Path, marks: marking.Marking) -> None:
  """Checks that an output can be marked, before the work and not after it.

  Raises:
    InputError: there is no key and none can be made, or the run card would
      replace another file.
  """
  run_card.check(output)
  if marks.is_signed:
    keys.own()


@contextlib.contextmanager
def recorded(
  output: Path, source: Source, audio: Path | None, settings: dict[str, Any]
) -> Iterator[Finish]:
  """Yields a function that signs the finished file and writes its run card.

  The card is there when the body ends, unless it raises.

  Args:
    output: that is made; only an mp4 can be signed.
    source: what it is made of.
    audio: file of the speech; None where it comes through a pipe.
    settings: with which.
  """
  output = pathlib.Path(output)
  with run_card.written(output) as card:

    def finish(file: pathlib.Path, figures: dict[str, Any]) -> None:
      record = _record(source, audio, settings)
      key = None
      if source.marking.is_signed and output.suffix.lower() == ".mp4":
        key = keys.own()
        manifest.sign(
          file,
          source.tracked.path,
          record,
          key,
          title=output.name,
          version=run_card.versions()["pir_jax"],
        )
      record["marks"]["signed by"] = key and key.name
      content = record | {"figures": figures | {"seconds": _seconds(source)}}
      run_card.write(card, file, output.name, content)

    yield finish


def _record(
  source: Source, audio: Path | None, settings: dict[str, Any]
) -> dict[str, Any]:
  video, person = source.tracked.video, source.person
  speech = {"name": _PIPE}
  if audio is not None:
    name, digest = pathlib.Path(audio).name, video_reader.digest(audio)
    speech = {"name": name, "sha256": digest}
  marks = source.marking
  without = {} if marks.is_signed else {"without": marking.WITHOUT}
  return {
    "inputs": {
      "video": {"name": video.name, "sha256": video.sha256},
      "audio": speech,
    },
    "model": {"sha256": ready.digest(person.folder) if person.folder else None},
    "settings": settings,
    "marks": {
      "mark": marks.mark,
      "watermark": source.watermark,
      "visible": marks.visible,
      "comment": source.comment,
      **without,
    },
  }


def _seconds(source: Source) -> dict[str, float]:
  return {
    name: round(sum(span.seconds for span in spans), 3)
    for name, spans in source.person.phases.spans.items()
  }
