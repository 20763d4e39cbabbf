"""A person and a video of them: its windows cut out, inpainted, put back.

b frames of a part of the video, h and w sides of a frame, n of what the network
is shown, e expression coefficients.
"""

import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.face import resemblance
from pir_jax.inference import cutter as cutter_lib
from pir_jax.inference.opening import load
from pir_jax.inference.person import KnownPerson, Person, person_in
from pir_jax.marks import watermark
from pir_jax.marks.marking import ALL_MARKS, Marking
from pir_jax.media import blending, fill, video_reader, video_writer
from pir_jax.preparation import growing, seen, tracking

_STRANGER = "another person than the networks were trained on"

Path = str | pathlib.Path
Numbered = tuple[int, UInt8[np.ndarray, "h w 3"]]


class Source(NamedTuple):
  """A person and a video in which they are seen.

  Attributes:
    person: whose networks inpaint, with their identity and phases.
    known: of the people that these were trained on.
    tracked: the video, all of it or as far as it is known.
    marking: of what is made of it.
  """

  person: Person
  known: KnownPerson
  tracked: tracking.TrackedVideo | growing.Growing
  marking: Marking = ALL_MARKS

  def close(self) -> None:
    """Ends the tracking of a video that is tracked on the way."""
    self.tracked.close()

  @property
  def watermark(self) -> str | None:
    """Returns the watermark's name; None without one, or on a small face."""
    track = self.tracked.track
    sides = track.window[:, 2] * track.mask_window[:, 2]
    side = np.median(sides[track.present])
    bears = self.marking.pattern is not None and side >= watermark.SMALLEST
    return watermark.NAME if bears else None

  @property
  def comment(self) -> str:
    """The mark of what is made of it; a stranger is named there."""
    alike = self.known.resembles(self.tracked.track.look)
    if alike is None or alike >= resemblance.SAME:
      return video_writer.COMMENT
    return f"{video_writer.COMMENT}; {_STRANGER}"


class Windows(NamedTuple):
  """What the networks are shown of some frames.

  Attributes:
    place: of each in its part of the video.
    number: of each in the video.
    image: in it, nothing under the mask counts.
    cover: the mask.
    borders: of the mask in each frame, for pasting.
  """

  place: Int[np.ndarray, "b"]
  number: Int[np.ndarray, "b"]
  image: UInt8[np.ndarray, "b n n 3"]
  cover: Bool[np.ndarray, "b n n"]
  borders: list[blending.Border]


def open_source(
  person: Person | Path,
  video: Path,
  *,
  face: int | Path | None = None,
  force: bool = False,
  seconds: float | None = None,
  on_the_way: bool = False,
  marking: Marking = ALL_MARKS,
) -> Source:
  """Tracks a trained person in a video; a known video is not tracked again.

  Args:
    person: from `load`, or the folder of its runs. Of several people that it
      was trained on, the one of this video is taken.
    video: of the person.
    face: which face of the video, counted from the largest, or a picture of
      it; by default whoever looks like the trained person.
    force: also takes somebody else, which the source's comment then names.
    seconds: of the video that are needed at least; None is all of it.
    on_the_way: a new video may be tracked while its first frames are in use;
      the source is then to be closed.
    marking: of what will be made of it.

  Raises:
    InputError: the networks are not whole, the video cannot be read or shows
      none of the people they were trained on. A stranger is refused unless
      forced.
  """
  info = video_reader.probe(video)
  if not isinstance(person, Person):
    person = load(person)
  known = person_in(person.people, info.sha256)
  person = person.with_identity(known.identity, known.stats)
  expected = known.look if len(known.look) else None
  if expected is None:
    print(
      "Whether the video shows the trained person cannot be decided: the "
      "networks were trained before that was recorded."
    )
  tracked = seen.track(
    video,
    video=info,
    phases=person.phases,
    face=face,
    expected=expected,
    refuse=not force,
    seconds=seconds,
    in_sections=on_the_way,
    **known.tracking_options(),
  )
  for remark in info.remarks:
    print(f"{info.name}: {remark}.")
  source = Source(person, known, tracked, marking)
  if marking.pattern is not None and source.watermark is None:
    print(
      f"The face is small, below {watermark.SMALLEST} pixels: no watermark "
      "could be detected, and it gets none."
    )
  if source.comment != video_writer.COMMENT:
    alike = known.resembles(tracked.track.look)
    print(f"This is {_STRANGER} (resemblance {alike:.2f}).")
  return source


def frames(source: Source, way: str) -> Iterator[Numbered]:
  """Yields the video's frames for ever, each with its number; see `fill`."""
  tracked = source.tracked
  if tracked.whole:
    return fill.read_endless(tracked.path, tracked.track.times, way)
  # By then all of them were shown, and so tracked.
  return fill.read_endless(
    tracked.path, lambda: tracked.track.times, way, tracked.frames()
  )


def cut_out(
  source: Source, frames: Iterator[Numbered], size: int
) -> Iterator[tuple[list[Numbered], Windows | None]]:
  """Yields parts of a video and their windows; None without a face.

  In training a frame's window is stored, and from that the network's is cut;
  here it is cut from the frame at once, which is quicker and differs by about
  a grey level. Pixels that the mask covers are the same or more.

  Args:
    source: the video, and who is cut out for.
    frames: of it, each with its number; they may come in any order.
    size: of a part.
  """
  phases = source.person.phases
  cutter = cutter_lib.Cutter(
    source.tracked, source.known.window_side, source.person.resolution
  )
  while True:
    begin = time.perf_counter()
    part = list(itertools.islice(frames, size))
    if not part:
      return
    phases.add("decode", time.perf_counter() - begin, len(part))
    shown = np.array([number for number, _ in part])
    tracked = source.tracked.upto(int(shown.max()))
    place = np.flatnonzero(tracked.track.present[shown])
    if not len(place):
      yield part, None
      continue
    chosen = shown[place]
    with phases.measure("masks and crops", len(place)):
      images, covers, borders = zip(
        *(
          cutter.cut(int(number), part[i][1])
          for number, i in zip(chosen, place, strict=True)
        ),
        strict=True,
      )
    yield (
      part,
      Windows(place, chosen, np.stack(images), np.stack(covers), [*borders]),
    )


def inpaint(
  source: Source,
  windows: Windows | None,
  wanted: Float[np.ndarray, "b e"],
  kept: Bool[np.ndarray, "e"],
) -> dict[int, Float[np.ndarray, "n n 3"]]:
  """Returns place in the part -> window, for the frames with a face.

  Args:
    source: whose networks inpaint.
    windows: from `cut_out`.
    wanted: expression of each frame of the part.
    kept: coefficients that are left as the source frame has them.
  """
  if windows is None:
    return {}
  tracked = source.tracked.upto(int(windows.number.max()))
  images = source.person.inpaint(
    windows.image.astype(np.float32) / 127.5 - 1,
    windows.cover[..., None].astype(np.float32),
    tracked.mask_cameras(windows.number),
    np.where(
      kept,
      tracked.track.expression[windows.number],
      wanted[windows.place],
    ),
  )
  return dict(zip(windows.place.tolist(), images, strict=True))


def paste(
  source: Source,
  part: list[Numbered],
  windows: Windows | None,
  images: dict[int, Float[np.ndarray, "n n 3"]],
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
  """Yields (frame, the same with its window); without a face, the very same.

  What is inpainted bears the watermark.
  """
  borders = {}
  if windows is not None:
    borders = dict(zip(windows.place.tolist(), windows.borders, strict=True))
  for i, (number, frame) in enumerate(part):
    if i not in images:
      yield frame, frame
      continue
    with source.person.phases.measure("composite"):
      square = source.tracked.upto(number).mask_square(number)
      result = blending.blend(
        frame, square, images[i], borders[i], source.marking.pattern
      )
    yield frame, result
