"""A known person speaks while the speech comes, with bounded delay and memory.

Threads wait for sound, predict expressions, cut out the source's windows and
run the networks; queues of a few frames lie between them. So a slow reader
stops all of it, up to whoever sends the sound.

n audio samples, h height, w width, t ticks, e expression coefficients.
"""

import contextlib
import io
import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.inference import source as source_lib
from pir_jax.inference import upper_face
from pir_jax.inference.person import Person
from pir_jax.marks.marking import Marking
from pir_jax.media import fill, live_writer, pcm, prefetch
from pir_jax.stages.speaker import LIVE_STEP
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

STEP = LIVE_STEP
MOST_AHEAD = 1.0  # Seconds.
MOST_PATIENCE = 3600.0  # Seconds.
_WAITING = 8  # Chunks of sound that may lie before the network.
_POLL = 0.1  # Seconds after which a waiting thread looks whether it is over.


class Moment(NamedTuple):
  """A frame of the output and the sound that goes with it.

  Attributes:
    time: seconds from the beginning.
    frame: of the video.
    before: the source's own; the very same where it shows no face.
    sound: mono, at the rate at which it came; silence where it came too late.
  """

  time: float
  frame: UInt8[np.ndarray, "h w 3"]
  before: UInt8[np.ndarray, "h w 3"]
  sound: Float[np.ndarray, "n"]


class _Wanted(NamedTuple):
  """A frame to be made: its number, expression and sound."""

  number: int
  expression: Float[np.ndarray, "e"]
  sound: Float[np.ndarray, "n"]


def stream(
  person: Person | source_lib.Path,
  video: source_lib.Path,
  chunks: Iterable[np.ndarray],
  *,
  face: int | source_lib.Path | None = None,
  force: bool = False,
  mark: str = "all",
  visible_mark: bool = False,
  **options: Any,
) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
  """Yields (seconds, frame) of a video that speaks what is still coming.

  Args:
    person: from `load`, or the folder of its runs.
    video: of the person.
    chunks: samples of any number, at 16 kHz or `sample_rate`.
    face: see `reenact`.
    force: see `reenact`.
    mark: "all" or "none"; frames bear the watermark only.
    visible_mark: also a label in a corner.
    **options: of `moments`: `sample_rate`, `look_ahead`, `way`, `patience`,
      `brows`, `blinks`.

  Raises:
    InputError: the video does not show the person, an argument has no such
      value, or the sound is none.
  """
  marking = Marking.of(mark, visible_mark)
  source = source_lib.open_source(
    *(person, video),
    face=face,
    force=force,
    on_the_way=options.get("blinks") not in upper_face.MADE,
    marking=marking,
  )
  with (
    contextlib.closing(source),
    contextlib.closing(moments(source, chunks, **options)) as made,
  ):
    for moment in made:
      yield moment.time, source.marking.labelled(moment.frame)


def moments(
  source: source_lib.Source,
  chunks: Iterable[np.ndarray],
  *,
  sample_rate: int = SAMPLE_RATE,
  look_ahead: float = 0.2,
  way: str = "bounce",
  brows: str = "source",
  blinks: str = "source",
  patience: float | None = None,
) -> Iterator[Moment]:
  """Yields the frames of speech that is still coming.

  Args:
    source: the person and their video, from `source.open_source`.
    chunks: samples of any number, floats or integers, one channel or more.
    sample_rate: of them, in Hz.
    look_ahead: seconds of speech after a frame that it waits for: lips move
      before sounds. Frames come some 0.1 s later than that.
    way: to go on when the video is at its end, see `fill.WAYS`.
    brows: see `reenact`.
    blinks: see `reenact`.
    patience: seconds by which sound may be late before silence takes its place,
      in which the mouth closes and the video goes on; None waits for ever.

  Raises:
    InputError: an argument has no such value, or the sound is none.
  """
  check(sample_rate, look_ahead, patience)
  upper_face.check(brows, blinks, source.known.masks.region)
  fill.frame_indices(1, 1, way)  # Refuses another way before the first frame.
  return _moments(
    source, chunks, sample_rate, look_ahead, way, (brows, blinks), patience
  )


def check(sample_rate: int, look_ahead: float, patience: float | None) -> None:
  """Raises InputError for values that `moments` does not take."""
  pcm.check_rate(sample_rate)
  if not 0 <= look_ahead <= MOST_AHEAD:
    raise InputError(
      f"look_ahead={look_ahead} must lie in 0 to {MOST_AHEAD:g} seconds."
    )
  if patience is not None and not 0 < patience <= MOST_PATIENCE:
    raise InputError(
      f"patience={patience} must lie above 0, up to {MOST_PATIENCE:g} seconds."
    )


def write(
  source: source_lib.Source,
  chunks: Iterable[np.ndarray],
  file: io.IOBase,
  *,
  kind: str = "mp4",
  sample_rate: int = SAMPLE_RATE,
  **options: Any,
) -> int:
  """Writes the video of speech that is still coming; returns its frames.

  Args:
    source: the person and their video.
    chunks: of sound.
    file: open for writing bytes.
    kind: of what is written, see `live_writer.FORMATS`.
    sample_rate: of the sound.
    **options: of `moments`.

  Raises:
    InputError: as `moments`; or whoever reads the file is gone.
  """
  video, count = source.tracked.video, 0
  made = moments(source, chunks, sample_rate=sample_rate, **options)
  sink = live_writer.LiveWriter(
    file,
    (video.width, video.height),
    video.rate,
    sample_rate=sample_rate,
    kind=kind,
    comment=source.comment,
    colors=video.colors,
  )
  try:
    with contextlib.closing(made), sink:
      for moment in made:
        with source.person.phases.measure("encode"):
          frame = source.marking.labelled(moment.frame)
          sink.write(frame, moment.sound)
        count += 1
  except BrokenPipeError as error:
    raise InputError(
      f"whoever reads the video closed it after {count} frames."
    ) from error
  if not count:
    raise InputError("no sound came: is the command before the pipe right?")
  if options.get("way") == "cut" and count == len(source.tracked.track.times):
    print("The video has ended, and with it what it is cut to (--fill).")
  return count


def _moments(source, chunks, sample_rate, look_ahead, way, upper, patience):
  over = threading.Event()
  tracked, rate = source.tracked, source.tracked.video.rate
  inbox = _incoming(chunks, sample_rate, patience, over)
  wanted_frames = prefetch.taken(
    _grouped(_wanted(source, inbox, sample_rate, look_ahead)), depth=1
  )
  frames = source_lib.frames(source, way)
  own = tracked.track.expression[tracked.track.present]
  person = source.person.in_batches_of(STEP)
  source = source._replace(person=person)
  cut_out = prefetch.taken(source_lib.cut_out(source, frames, STEP), depth=8)

  def made():
    for group, (part, windows) in zip(wanted_frames, cut_out, strict=False):
      wanted, kept = upper_face.apply(
        np.stack([frame.expression for frame in group]),
        person.expression_names,
        np.array([float(frame.number / rate) for frame in group]),
        own,
        *upper,
      )
      # The last group may be short, and its expressions are then repeated.
      wanted = wanted[np.minimum(np.arange(len(part)), len(wanted) - 1)]
      images = source_lib.inpaint(source, windows, wanted, kept)
      yield group, (part, windows, images)

  try:
    for group, parts in prefetch.taken(made(), depth=1):
      pairs = source_lib.paste(source, *parts)
      for frame, (before, after) in zip(group, pairs, strict=False):
        yield Moment(float(frame.number / rate), after, before, frame.sound)
  finally:
    over.set()


def _grouped(items: Iterable) -> Iterator[list]:
  items = iter(items)
  while group := list(itertools.islice(items, STEP)):
    yield group


def _wanted(
  source: source_lib.Source,
  incoming: Iterable[np.ndarray],
  sample_rate: int,
  look_ahead: float,
) -> Iterator[_Wanted]:
  """Yields each frame to be made as soon as its expression is known."""
  speech = source.person.begin_speech(round(look_ahead * FRAME_RATE), STEP)
  phases = source.person.phases
  resampler = pcm.Resampler(sample_rate, SAMPLE_RATE)
  line = _Timeline(source.tracked.video.rate, sample_rate)
  for chunk in incoming:
    begin = time.perf_counter()
    ticks = speech.push(resampler.push(chunk))
    if len(ticks):
      phases.add("speech", time.perf_counter() - begin, len(ticks))
    line.add(chunk, ticks)
    yield from line.frames()
  for rest in (speech.push(resampler.finish()), speech.finish()):
    line.add(np.zeros(0, np.float32), rest)
  yield from line.frames(ended=True)


class _Timeline:
  """Sound and ticks that have come, and the frames of another rate in them."""

  def __init__(self, frame_rate: Fraction, sample_rate: int):
    self._rate, self._sample_rate = frame_rate, sample_rate
    self._number = 0  # Of the next frame.
    self._sound, self._first_sample = np.zeros(0, np.float32), 0
    self._ticks: list[np.ndarray] = []
    self._first_tick = 0

  def add(
    self, sound: Float[np.ndarray, "n"], ticks: Float[np.ndarray, "t e"]
  ) -> None:
    """Adds what came next."""
    self._sound = np.concatenate([self._sound, sound])
    self._ticks += [*ticks]

  def frames(self, *, ended: bool = False) -> Iterator[_Wanted]:
    """Yields the frames that are complete; all, where nothing else comes."""
    received = self._first_sample + len(self._sound)
    total = round(received / self._sample_rate * self._rate)
    total = max(total, 1 if received else 0)
    while self._number < total and self._ticks:
      edge = round((self._number + 1) / self._rate * self._sample_rate)
      place = self._number / self._rate * FRAME_RATE - self._first_tick
      known = edge <= received and place + 1 < len(self._ticks)
      if not (known or ended):
        return
      low = min(int(place), len(self._ticks) - 1)
      high = min(low + 1, len(self._ticks) - 1)
      share = np.float32(min(place - low, 1))
      expression = (1 - share) * self._ticks[low] + share * self._ticks[high]
      sound = self._sound[: edge - self._first_sample]
      self._sound = self._sound[len(sound) :]
      self._first_sample += len(sound)
      self._ticks, self._first_tick = self._ticks[low:], self._first_tick + low
      yield _Wanted(self._number, expression, sound)
      self._number += 1


def _incoming(
  chunks: Iterable[np.ndarray],
  sample_rate: int,
  patience: float | None,
  over: threading.Event,
) -> Iterator[Float[np.ndarray, "n"]]:
  """Yields mono chunks, and silence in the place of what is late."""
  waiting: queue.Queue = queue.Queue(_WAITING)

  def put(kind: str, value: object) -> bool:
    while not over.is_set():
      try:
        waiting.put((kind, value), timeout=_POLL)
        return True
      except queue.Full:
        continue
    return False

  def receive() -> None:
    try:
      for chunk in chunks:
        if not put("chunk", pcm.as_mono(chunk)):
          return
      put("end", None)
    # Every error is raised where the sound is needed.
    except BaseException as error:
      put("error", error)

  # Nobody waits for it: it may wait for a pipe that never ends.
  threading.Thread(target=receive, daemon=True).start()
  silence = np.zeros(round(STEP / FRAME_RATE * sample_rate), np.float32)
  begun, num_samples = None, 0
  due = float("inf")
  while not over.is_set():
    now = time.monotonic()
    if begun is not None and patience is not None:
      # A reader that stopped all this is no fault of the sender's.
      due = max(begun + num_samples / sample_rate, now) + patience
    kind = value = None
    while kind is None and not over.is_set():
      try:
        rest = max(due - time.monotonic(), 0.001)
        kind, value = waiting.get(timeout=min(_POLL, rest))
      except queue.Empty:
        if time.monotonic() >= due:
          kind, value = "chunk", silence
    if kind == "error":
      raise value
    if kind != "chunk":
      return
    if begun is None:
      begun = time.monotonic() - len(value) / sample_rate
    num_samples += len(value)
    yield value
