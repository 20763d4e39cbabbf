"""A video reenacted: speech -> expressions -> inpainted windows -> the video.

t source frames, count frames of the output, h and w their sides, e expression
coefficients.
"""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pir_jax.data import timing
from pir_jax.inference import live, provenance, ready, upper_face
from pir_jax.inference import source as source_lib
from pir_jax.inference.opening import load
from pir_jax.inference.person import Person, person_in, read_speech
from pir_jax.marks.marking import Marking
from pir_jax.media import (
  crops,
  fill,
  plots,
  prefetch,
  video_reader,
  video_writer,
  whole_file,
)
from pir_jax.runtime import progress, section_timer
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

_CHUNK = ready.BATCHES[-1]  # Frames that are inpainted together.
LONG = 300.0  # Seconds of speech that are read at once.
_BLOCK = SAMPLE_RATE // 2  # Samples of longer speech that are.
_SPARE = 1.0  # Seconds of video after the last that is shown: masks spread.
_SHEET_COLUMNS = 6
_SHEET_SIDE = 256

Path = str | pathlib.Path


class Reenacted(NamedTuple):
  """What became of a video.

  Attributes:
    num_frames: that were written.
    num_unchanged: of these, frames without a face.
    phases: how long each part took.
    first: when the first frame was there, on `time.perf_counter`'s clock.
  """

  num_frames: int
  num_unchanged: int
  phases: section_timer.SectionTimer
  first: float


def reenact(
  person: Person | Path,
  video: Path,
  audio: Path,
  output: Path,
  *,
  face: int | Path | None = None,
  force: bool = False,
  brows: str = "source",
  blinks: str = "source",
  contact_sheet: Path = "",
  way: str = "bounce",
  mark: str = "all",
  visible_mark: bool = False,
) -> Reenacted:
  """Writes a video in which a person speaks other words.

  It has the source's size and frame rate and lasts as long as the speech.
  Frames without a face are unchanged.

  Args:
    person: from `load`, or the folder of its runs. Of several people that it
      was trained on, the one of this video is taken.
    video: of the person.
    audio: the speech, any sound or video file.
    output: the mp4 to write.
    face: which face of the video, counted from the largest, or a picture of
      it; by default whoever looks like the trained person.
    force: also reenacts somebody else, which the output's metadata then name.
    brows: "source" keeps the source's; "speech" predicts them, as the paper
      does.
    blinks: likewise, or "generated" at a human rate, or "none". Where only the
      lower face is inpainted, brows and eyes are the source's own anyway.
    contact_sheet: a png or jpg to write too, real above reenacted frames.
    way: to fill what the speech is longer than the source: "bounce" plays it
      forward, backward and so on, "loop" again and again, "hold" its last
      frame; "cut" ends with it.
    mark: "all": a watermark where it is inpainted, and a signed manifest; or
      "none". The run card, a json file beside the output, states which.
    visible_mark: also a label in a corner.

  Raises:
    InputError: a file cannot be read or written, the networks are not whole,
      the video shows none of the people they were trained on, or the eyes are
      not inpainted and cannot blink. A stranger is refused unless forced.
  """
  output = pathlib.Path(output)
  _check_output(output, video, audio, contact_sheet)
  marking = Marking.of(mark, visible_mark)
  provenance.check(output, marking)
  waveform = read_speech(audio, LONG)
  sha256 = video_reader.probe(video).sha256
  person = person if isinstance(person, Person) else load(person)
  known = person_in(person.people, sha256)
  upper_face.check(brows, blinks, known.masks.region)
  is_long = len(waveform) >= round(LONG * SAMPLE_RATE)
  needed = None if is_long else len(waveform) / SAMPLE_RATE + _SPARE
  source = source_lib.open_source(
    *(person, video),
    face=face,
    force=force,
    seconds=needed,
    on_the_way=blinks not in upper_face.MADE,
    marking=marking,
  )
  sheet = _Sheet()
  with contextlib.closing(source):
    done = (write_long if is_long else write)(
      *(source, waveform, audio, output),
      brows=brows,
      blinks=blinks,
      way=way,
      sheet=sheet if contact_sheet else None,
    )
    if contact_sheet:
      sheet.save(contact_sheet)
    if needed is not None:
      # What little is left: it is known the next time. The output is made,
      # and does not suffer by whatever is wrong there.
      with contextlib.suppress(InputError):
        source.tracked.finish()
  return done


def write(
  source: source_lib.Source,
  waveform: Float[np.ndarray, "n"],
  audio: Path,
  output: Path,
  *,
  brows: str = "source",
  blinks: str = "source",
  way: str = "bounce",
  sheet: "_Sheet | None" = None,
) -> Reenacted:
  """Writes the video of an opened source; see `reenact`.

  Args:
    source: the person and their video.
    waveform: the speech, at SAMPLE_RATE.
    audio: file of the speech, whose sound the video gets.
    output: the mp4 to write.
    brows: see `reenact`.
    blinks: likewise.
    way: likewise.
    sheet: takes a few frames.
  """
  tracked, phases = source.tracked, source.person.phases
  rate, num_source = tracked.video.rate, len(tracked.track.times)
  if not tracked.whole:  # As many as its file declares, in all likelihood.
    num_source = tracked.video.num_frames or round(
      tracked.video.duration * rate
    )
  asked = max(1, round(len(waveform) / SAMPLE_RATE * rate))
  count = len(fill.frame_indices(num_source, asked, way))
  with phases.measure("speech", count):
    predicted = source.person.predict_expression(waveform)
  wanted, kept = upper_face.apply(
    _at_rate(predicted, count, rate),
    source.person.expression_names,
    np.arange(count) / float(rate),
    tracked.track.expression[tracked.track.present],
    brows,
    blinks,
  )
  if count < (tracked.video.num_frames or num_source) - rate / 2:
    print("The speech ends before the video, whose rest is left out.")
  if count < asked - rate / 2:
    print("The video ends before the speech, whose rest is left out.")
  if sheet is not None:
    sheet.expect(count, _windows_of(source, way))
  frames = itertools.islice(source_lib.frames(source, way), count)
  pairs = inpaint_frames(source, frames, wanted, kept)
  settings = {"brows": brows, "blinks": blinks, "way": way}
  return _deliver(source, pairs, count, audio, output, sheet, settings)


def write_long(
  source: source_lib.Source,
  waveform: Float[np.ndarray, "n"],
  audio: Path,
  output: Path,
  *,
  sheet: "_Sheet | None" = None,
  **options: Any,
) -> Reenacted:
  """Does the same for speech of any length, in the memory of a minute's.

  It is read piece by piece, as if it came through a pipe, but with a look-ahead
  at which lips follow as well as those of whole speech.

  Args:
    source: the person and their video.
    waveform: the beginning of the speech, which its progress is counted by.
    audio: file of the speech.
    output: the mp4 to write.
    sheet: takes a few frames of the beginning.
    **options: `brows`, `blinks` and `way`, see `reenact`.
  """
  print(
    f"The speech is longer than {LONG / 60:g} minutes: it is read on the way."
  )
  begun = round(len(waveform) / SAMPLE_RATE * source.tracked.video.rate)
  if sheet is not None:
    sheet.expect(begun, _windows_of(source, options.get("way", "bounce")))
  blocks = video_reader.stream_audio(audio, _BLOCK)

  def pairs():
    moments = live.moments(
      source, blocks, look_ahead=live.MOST_AHEAD, **options
    )
    with contextlib.closing(moments):
      for moment in moments:
        yield moment.before, moment.frame

  return _deliver(source, pairs(), begun, audio, output, sheet, options)


def _deliver(source, pairs, count, audio, output, sheet, settings) -> Reenacted:
  """Writes frames, of which there will be about so many, and marks the file."""
  video, phases = source.tracked.video, source.person.phases
  num_frames, num_unchanged, first = 0, 0, 0.0

  def finish(file: pathlib.Path) -> None:
    record(file, {"frames": num_frames, "unchanged frames": num_unchanged})

  with (
    # Its threads must not outlive an interruption.
    contextlib.closing(pairs),
    provenance.recorded(output, source, audio, settings) as record,
    video_writer.VideoWriter(
      output,
      (video.width, video.height),
      video.rate,
      audio=audio,
      colors=video.colors,
      comment=source.comment,
      finish=finish,
    ) as sink,
  ):
    for before, after in progress.track(pairs, "inpainting", count):
      first = first or time.perf_counter()
      num_frames += 1
      num_unchanged += after is before
      if sheet is not None:
        sheet.add(before, after)
      with phases.measure("encode"):
        sink.write(source.marking.labelled(after))
  return Reenacted(num_frames, num_unchanged, phases, first)


def _windows_of(
  source: source_lib.Source, way: str
) -> Callable[[int], Float[np.ndarray, "3"]]:
  """Returns what finds the window of a frame of the output, once it is made."""

  def window(place: int) -> Float[np.ndarray, "3"]:
    track = source.tracked.track
    shown = fill.frame_indices(len(track.times), place + 1, way)
    return track.window[shown[-1]]

  return window


class _Sheet:
  """A few frames before and after, side by side."""

  def __init__(self):
    self._places: set[int] = set()
    self._number = 0
    self._rows = {"real": [], "reenacted": []}

  def expect(
    self, count: int, window_of: Callable[[int], Float[np.ndarray, "3"]]
  ) -> None:
    """Chooses a few of so many frames, each with a window."""
    places = np.linspace(0, count - 1, min(count, _SHEET_COLUMNS))
    self._places, self._window_of = set(places.astype(int).tolist()), window_of

  def add(self, *frames: UInt8[np.ndarray, "h w 3"]) -> None:
    """Takes the next frame, before and after, or leaves it."""
    if self._number in self._places:
      window = self._window_of(self._number)
      for row, frame in zip(self._rows.values(), frames, strict=True):
        row.append(crops.crop_window(frame, window, _SHEET_SIDE))
    self._number += 1

  def save(self, path: Path) -> None:
    """Writes the sheet."""
    rows = {name: np.stack(row) for name, row in self._rows.items()}
    with whole_file.written(path) as hidden:
      plots.contact_sheet(rows, num_columns=_SHEET_COLUMNS).save(hidden)


def _at_rate(
  expression: Float[np.ndarray, "t e"], count: int, frame_rate: Fraction
) -> Float[np.ndarray, "count e"]:
  """Interpolates expressions at FRAME_RATE for frames of another rate."""
  return timing.interpolate(
    np.arange(len(expression)) / FRAME_RATE,
    expression,
    np.ones(len(expression), bool),
    np.arange(count) / float(frame_rate),
  )[0]


def _check_output(
  output: pathlib.Path, video: Path, audio: Path, contact_sheet: Path
) -> None:
  """Refuses names that cannot be written, before the work and not after it."""
  sources = {pathlib.Path(path).resolve() for path in (video, audio)}
  for path in (output, contact_sheet):
    if path and pathlib.Path(path).resolve() in sources:
      raise InputError(f"{path} is the source itself: choose another name.")
  whole_file.check(output, (".mp4",))
  if contact_sheet:
    whole_file.check(contact_sheet, (".png", ".jpg"))


def inpaint_frames(
  source: source_lib.Source,
  frames: Iterator[source_lib.Numbered],
  wanted: Float[np.ndarray, "count e"],
  kept: Bool[np.ndarray, "e"],
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
  """Yields (frame, the same inpainted); without a face, the very same.

  Threads decode and cut out what comes next while the networks run, and these
  while frames are pasted. Each part's time goes to the person's phases.

  Args:
    source: the person and their video.
    frames: that are shown, each with its number; at most `count`.
    wanted: expression of each frame to be made.
    kept: coefficients that are left as the source frame has them.
  """
  parts = prefetch.taken(source_lib.cut_out(source, frames, _CHUNK), depth=1)

  def inpainted():
    start = 0
    for part, windows in parts:
      expression = wanted[start : start + len(part)]
      start += len(part)
      images = source_lib.inpaint(source, windows, expression, kept)
      yield part, windows, images

  with contextlib.closing(prefetch.taken(inpainted(), depth=1)) as made:
    for part in made:
      yield from source_lib.paste(source, *part)
