"""A video reenacted: speech -> expressions -> inpainted windows -> the video.

t source frames, count frames of the output, h and w their sides, e expression
coefficients.
"""

import itertools
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.data import timing
from pir_jax.face import resemblance
from pir_jax.inference import upper_face
from pir_jax.inference.person import Person, load, person_in, read_speech
from pir_jax.media import (
  blending,
  fill,
  plots,
  prefetch,
  video_reader,
  video_writer,
  whole_file,
)
from pir_jax.media import crops as crops_lib
from pir_jax.preparation import seen, tracking
from pir_jax.runtime import progress, section_timer
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

# Frames whose masks are made and whose faces are inpainted together.
_CHUNK = 16
_SHEET_COLUMNS = 6
_SHEET_SIDE = 256
_STRANGER = "another person than the networks were trained on"

Path = str | pathlib.Path


class Reenacted(NamedTuple):
  """What became of a video.

  Attributes:
    num_frames: that were written.
    num_unchanged: of these, frames without a face.
    phases: how long each part took.
  """

  num_frames: int
  num_unchanged: int
  phases: section_timer.SectionTimer


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

  Raises:
    InputError: a file cannot be read or written, the networks are not whole,
      the video shows none of the people they were trained on, or the eyes are
      not inpainted and cannot blink. A stranger is refused unless forced.
  """
  output = pathlib.Path(output)
  _check_output(output, video, audio, contact_sheet)
  waveform = read_speech(audio)
  info = video_reader.probe(video)
  if not isinstance(person, Person):
    person = load(person)
  known = person_in(person.people, info.sha256)
  upper_face.check(brows, blinks, known.masks.region)
  phases = section_timer.SectionTimer()
  person = person.with_identity(known.identity, known.stats, phases)
  tracked = _tracked(known, info, video, face, force, phases)
  rate = info.rate
  asked = max(1, round(len(waveform) / SAMPLE_RATE * rate))
  source = fill.frame_indices(len(tracked.track.times), asked, way)
  count = len(source)
  with phases.measure("speech", count):
    predicted = _at_rate(person.predict_expression(waveform), count, rate)
  wanted, kept = upper_face.apply(
    predicted,
    person.expression_names,
    np.arange(count) / float(rate),
    tracked.track.expression[tracked.track.present],
    brows,
    blinks,
  )
  for remark in info.remarks:
    print(f"{info.name}: {remark}.")
  size = (info.width, info.height)
  if count < len(tracked.track.times) - rate / 2:
    print("The speech ends before the video, whose rest is left out.")
  if count < asked - rate / 2:
    print("The video ends before the speech, whose rest is left out.")
  num_unchanged = 0
  in_sheet = np.linspace(0, count - 1, min(count, _SHEET_COLUMNS)).astype(int)
  real, reenacted = [], []
  mark = _comment(known, tracked)
  options = {"audio": audio, "colors": info.colors, "comment": mark}
  with video_writer.VideoWriter(output, size, rate, **options) as sink:
    pairs = inpaint_frames(
      person, tracked, source, wanted, kept, known.window_side, phases
    )
    for index, (before, after) in enumerate(
      progress.track(pairs, "inpainting", count)
    ):
      num_unchanged += after is before
      with phases.measure("encode"):
        sink.write(after)
      if index in in_sheet:
        window = tracked.track.window[source[index]]
        real.append(crops_lib.crop_window(before, window, _SHEET_SIDE))
        reenacted.append(crops_lib.crop_window(after, window, _SHEET_SIDE))
  if contact_sheet:
    rows = {"real": np.stack(real), "reenacted": np.stack(reenacted)}
    with whole_file.written(contact_sheet) as hidden:
      plots.contact_sheet(rows, num_columns=_SHEET_COLUMNS).save(hidden)
  return Reenacted(count, num_unchanged, phases)


def _tracked(known, info, video, face, force, phases):
  """Tracks the trained person, or with force whoever is most like them."""
  expected = known.look if len(known.look) else None
  if expected is None:
    print(
      "Whether the video shows the trained person cannot be decided: the "
      "networks were trained before that was recorded."
    )
  options = {"face": face, "expected": expected, "refuse": not force}
  options |= known.tracking_options()
  return seen.track(video, video=info, phases=phases, **options)


def _comment(known, tracked) -> str:
  """Returns the mark of the output; a stranger is named there and printed."""
  alike = known.resembles(tracked.track.look)
  if alike is None or alike >= resemblance.SAME:
    return video_writer.COMMENT
  print(f"This is {_STRANGER} (resemblance {alike:.2f}).")
  return f"{video_writer.COMMENT}; {_STRANGER}"


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
  person: Person,
  tracked: tracking.TrackedVideo,
  source: Int[np.ndarray, "count"],
  wanted: Float[np.ndarray, "count e"],
  kept: Bool[np.ndarray, "e"],
  window_side: int,
  phases: section_timer.SectionTimer | None = None,
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
  """Yields (frame, the same inpainted); without a face, the very same.

  Threads decode and cut out what comes next while the networks run, and these
  while frames are pasted.

  Args:
    person: whose networks inpaint.
    tracked: the video.
    source: which of its frames are shown, see `fill.frame_indices`.
    wanted: expression of each frame to be made.
    kept: coefficients that are left as the source frame has them.
    window_side: of the windows that the person was learnt from.
    phases: where the time of each part is recorded, but for the inpainting,
      which the person records.
  """
  phases = phases or section_timer.SectionTimer()
  timed = (tracked, source, window_side, person.resolution, phases)
  parts = prefetch.taken(_cut_out(*timed), depth=1)

  def inpainted():
    start = 0
    for part, windows in parts:
      expression = wanted[start : start + len(part)]
      start += len(part)
      yield part, _inpainted(person, tracked, expression, kept, windows)

  for part, images in prefetch.taken(inpainted(), depth=1):
    for i, (number, frame) in enumerate(part):
      if i not in images:
        yield frame, frame
        continue
      with phases.measure("composite"):
        window = tracked.mask_square(number)
        result = blending.paste(frame, window, *images[i])
      yield frame, result


class _Windows(NamedTuple):
  """What the networks are shown of some frames.

  Attributes:
    place: of each in its part of the video.
    number: of each in the source.
    image: in it, nothing under the mask counts.
    cover: the mask.
  """

  place: Int[np.ndarray, "b"]
  number: Int[np.ndarray, "b"]
  image: UInt8[np.ndarray, "b h w 3"]
  cover: Bool[np.ndarray, "b h w"]


def _cut_out(tracked, source, window_side, resolution, phases):
  """Yields (some numbered frames, their windows; None without a face)."""
  frames = fill.read(tracked.path, tracked.track.times, source)
  for start in range(0, len(source), _CHUNK):
    chosen = source[start : start + _CHUNK]
    with phases.measure("decode", len(chosen)):
      part = list(itertools.islice(frames, len(chosen)))
    place = np.flatnonzero(tracked.track.present[chosen])
    if not len(place):
      yield part, None
      continue
    number = chosen[place]
    with phases.measure("masks and crops", len(place)):
      masks = tracked.face_masks(number, window_side)
      windows = [
        crops_lib.network_window(
          crops_lib.crop_window(
            part[i][1], tracked.track.window[n], window_side
          ),
          mask,
          resolution,
          tracked.track.mask_window[n],
        )
        for i, n, mask in zip(place, number, masks, strict=True)
      ]
    images, covers = zip(*windows, strict=True)
    yield part, _Windows(place, number, np.stack(images), np.stack(covers))


def _inpainted(person, tracked, expression, kept, windows) -> dict:
  """Returns place in the part -> (window, mask) for the frames with a face."""
  if windows is None:
    return {}
  images = person.inpaint(
    windows.image.astype(np.float32) / 127.5 - 1,
    windows.cover[..., None].astype(np.float32),
    tracked.mask_cameras(windows.number),
    np.where(
      kept,
      tracked.track.expression[windows.number],
      expression[windows.place],
    ),
  )
  pairs = zip(images, windows.cover, strict=True)
  return dict(zip(windows.place.tolist(), pairs, strict=True))
