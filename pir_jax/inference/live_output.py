"""Writes live speech to a pipe or a file, with the marks that it can bear."""

import contextlib
import gc
import pathlib
from collections.abc import Iterable

import numpy as np

from pir_jax.inference import live, provenance, upper_face
from pir_jax.inference import source as source_lib
from pir_jax.marks.marking import Marking
from pir_jax.media import whole_file
from pir_jax.types import SAMPLE_RATE

_IN_A_PIPE = {
  "mp4": "the watermark and the comment",
  "raw": "the watermark alone",
}


def write(
  model: source_lib.Path,
  video: source_lib.Path,
  chunks: Iterable[np.ndarray],
  output: str,
  *,
  kind: str = "mp4",
  face: int | source_lib.Path | None = None,
  force: bool = False,
  mark: str = "all",
  visible_mark: bool = False,
  sample_rate: int = SAMPLE_RATE,
  look_ahead: float = 0.2,
  patience: float | None = None,
  **options: str,
) -> None:
  """Writes the video of speech that is still coming, and reports on it.

  Args:
    model: folder of the person's runs.
    video: of the person.
    chunks: of sound.
    output: name of a file, or "-": standard output. Through a pipe goes no
      signed manifest and no run card.
    kind: of what is written, see `live_writer.FORMATS`.
    face: see `reenact`.
    force: likewise.
    mark: likewise.
    visible_mark: likewise.
    sample_rate: see `live.moments`.
    look_ahead: likewise.
    patience: likewise.
    **options: `way`, `brows` and `blinks`, likewise.

  Raises:
    InputError: as `live.write`, or the output cannot be marked or written.
  """
  live.check(sample_rate, look_ahead, patience)
  marking = Marking.of(mark, visible_mark)
  speech = {"sample_rate": sample_rate, "look_ahead": look_ahead}
  options |= speech | {"patience": patience}
  source, count = None, 0

  def finish(file: pathlib.Path) -> None:
    settings = {"live": True, "format": kind} | options
    with provenance.recorded(output, source, None, settings) as record:
      record(file, {"frames": count})

  if output != "-":
    provenance.check(output, marking)
  with whole_file.opened(output, (f".{kind}",), finish) as file:
    if output == "-" and marking.is_signed:
      print(
        f"Through a pipe goes {_IN_A_PIPE[kind]}: no signed manifest, no run "
        "card."
      )
    source = source_lib.open_source(
      *(model, video),
      face=face,
      force=force,
      on_the_way=options.get("blinks") not in upper_face.MADE,
      marking=marking,
    )
    # Modules and networks stay: to look through them for garbage takes as long
    # as ten frames.
    gc.freeze()
    with contextlib.closing(source):
      count = live.write(source, chunks, file, kind=kind, **options)
    print(source.person.phases.table())
    print(f"{output}: {count} frames")
