"""Tracks a known person while the beginning of the video is in use already.

Section by section: focal length and offsets are estimated in the first, and a
window that does not suffice any more turns slowly into the next one.

t frames, d sides of a look, i identity coefficients, h and w sides of a frame.
"""

import contextlib
import itertools
import math
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.data import track as track_lib
from pir_jax.face import fitting, landmarks, masks, morphable
from pir_jax.media import crops, prefetch, video_reader
from pir_jax.preparation import tracking
from pir_jax.preparation.tracking import TrackedVideo
from pir_jax.runtime import section_timer

# A section with its margins takes about so long: as many frames as one program
# of the fit takes. A margin is what a mask joins, and frames for smoothing.
_SECONDS, _MARGIN, _SMOOTHING = 6.6, 0.5, 3
_ONCE = ("identity", "look", "landmarks")  # Not a row a frame, or too large.
# Of the frames of a section, of which three may be in memory at a time; larger
# ones are decoded again.
_MAX_BYTES = 160 * 2**20


class _OverError(Exception):
  """Nobody needs the rest of the video."""


class Step(NamedTuple):
  """What is known after a section.

  Attributes:
    tracked: the video as far as it is tracked.
    images: its frames, each by its place in the video; none of a large video.
  """

  tracked: TrackedVideo
  images: dict[int, UInt8[np.ndarray, "h w 3"]]


class Growing:
  """A video whose track grows, in the place of a `TrackedVideo`.

  Attributes:
    whole: the end of the video is known.
  """

  def __init__(
    self, steps: Iterator[Step], over: threading.Event | None = None
  ):
    """Waits for the first section; a thread goes on.

    Args:
      steps: see `sections`.
      over: ends them.

    Raises:
      InputError: as `tracking.track`.
    """
    self.whole = False
    self._over = over or threading.Event()
    self._lock = threading.Lock()
    self._steps = prefetch.taken(steps, depth=1, ended=self._over.set)
    self._tracked, self._images = next(self._steps)

  @property
  def path(self) -> pathlib.Path:
    """Returns the path of the video."""
    return self._tracked.path

  @property
  def video(self) -> video_reader.VideoInfo:
    """Returns what its file declares."""
    return self._tracked.video

  @property
  def track(self) -> track_lib.Track:
    """Returns as much as is known."""
    return self._tracked.track

  def upto(self, frame: int) -> TrackedVideo:
    """Returns a track that knows a frame and all whose faces its mask joins.

    One thread at a time may wait here for a frame that is not known yet.
    """
    while not (self.whole or self._knows(frame)):
      self._grow()
    return self._tracked

  def frames(self) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yields (number, frame) once, each when its section is tracked.

    What was decoded for the tracker is not decoded again, up to the first frame
    that was not kept.
    """
    number = 0
    while self._has(number) and number in self._images:
      yield number, self._images.pop(number)
      number += 1
    self._images.clear()
    if not self._has(number):
      return
    rest = itertools.islice(video_reader.read_frames(self.path), number, None)
    for later, (_, image) in enumerate(rest, number):
      if not self._has(later):
        return
      yield later, image

  def finish(self) -> TrackedVideo:
    """Waits for the whole track."""
    while not self.whole:
      self._grow()
    return self._tracked

  def close(self) -> None:
    """Ends the thread, also while another one waits for a frame."""
    self._over.set()
    with self._lock:
      self._steps.close()

  def _knows(self, frame: int) -> bool:
    times, spread = self.track.times, self._tracked.config.spread_seconds
    # Times, as in `masks.neighbours`: frames may come at any rate.
    known = frame < len(times) and times[-1] > times[frame] + spread + 2e-3
    return bool(known)

  def _has(self, frame: int) -> bool:
    """Returns whether the track has a frame, for which it waits."""
    while not self.whole and frame >= len(self.track.times):
      self._grow()
    return frame < len(self.track.times)

  def _grow(self) -> None:
    with self._lock:
      step = next(self._steps, None)
    self.whole = step is None
    if step is not None:
      self._tracked = step.tracked
      self._images |= step.images


def begin(
  path: pathlib.Path, *, keep: Callable[[TrackedVideo], None], **options: Any
) -> Growing:
  """Begins to track; see `sections`.

  Args:
    path: of the video.
    keep: is called with the whole track, if it comes to that.
    **options: of `sections`.
  """
  over = threading.Event()

  def steps() -> Iterator[Step]:
    step = None
    for step in sections(path, over=over, **options):
      yield step
    keep(step.tracked)

  return Growing(steps(), over)


def sections(
  path: pathlib.Path,
  *,
  video: video_reader.VideoInfo,
  identity: Float[np.ndarray, "i"],
  config: masks.Config,
  model: morphable.FaceModel,
  expected: Float[np.ndarray, "d"],
  phases: section_timer.SectionTimer | None = None,
  seconds: float | None = None,
  over: threading.Event | None = None,
) -> Iterator[Step]:
  """Yields the track of more and more of a video, the last time all of it.

  Only the last one has landmarks: they are large.

  Args:
    path: of the video.
    video: what its file declares.
    identity: of the person.
    config: of masks and window.
    model: the parametric head.
    expected: look of the person.
    phases: collects how long each part took.
    seconds: of the video that are looked at; None is all of it.
    over: ends it, where nobody needs the rest.

  Raises:
    InputError: as `tracking.track`.
  """
  phases = phases or section_timer.SectionTimer()
  over = over or threading.Event()
  rate, times, images, all_kept = float(video.rate), [], {}, True
  length, margin = _lengths(rate)

  def frames() -> Iterator[np.ndarray]:
    nonlocal all_kept
    read = prefetch.taken(video_reader.read_frames(path))
    with contextlib.closing(read):
      for at, image in read:
        if over.is_set():
          raise _OverError
        if seconds is not None and at >= seconds:
          return
        # A section that begins late, because nobody is seen, is longer.
        num_frames = max(length + 2 * margin, len(images))
        all_kept &= num_frames * image.nbytes <= _MAX_BYTES
        if all_kept:
          images[len(times)] = image
        times.append(float(at))
        yield image

  parts = landmarks.sections(
    frames(), length=length, margin=margin, expected=expected, fps=rate
  )
  grown, before = None, (None, None)
  begin = time.perf_counter()
  with tempfile.TemporaryFile() as file:
    for first, inner, seen in parts:
      count = inner.stop - inner.start
      phases.add("detect and track", time.perf_counter() - begin, count)
      with phases.measure("fit", count):
        fit = _fit(grown, seen, video, model, identity)
      part = tracking.assembled(
        (path, video, model, config),
        np.asarray(times[first : first + len(seen.shot)]),
        seen,
        fit,
        before,
      )
      # The frames about the end of this section, where the next begins.
      about = slice(max(0, inner.stop - margin), None)
      window, inside = part.track.window, part.track.mask_window
      before = window[about], crops.inside(window, inside)[about]
      file.write(np.float32(part.track.landmarks[inner]).tobytes())
      grown = _joined(grown, part, inner)
      shown = [x for x in images if x < len(grown.track.times)]
      yield Step(grown, {number: images.pop(number) for number in shown})
      begin = time.perf_counter()
    shape = len(grown.track.times), *part.track.landmarks.shape[1:]
    points = np.memmap(file, np.float32, "r", shape=shape)
  track = grown.track._replace(landmarks=points)
  yield Step(grown._replace(track=track), {})


def _lengths(fps: float) -> tuple[int, int]:
  """Returns frames of a section and of a margin."""
  margin = math.ceil(_MARGIN * fps) + _SMOOTHING
  pieces = max(1, round(_SECONDS * fps / fitting.PIECE_PADDING))
  return pieces * fitting.PIECE_PADDING - 2 * margin, margin


def _fit(grown, seen, video, model, identity) -> fitting.Fit:
  """Fits a section's frames; without a face the head stays where it was."""
  size, rate = (video.height, video.width), float(video.rate)
  options = {"fps": rate, "shot": seen.shot}
  known = seen.landmarks, seen.present, size, model
  if grown is None:
    return fitting.fit(*known, identity=identity, **options)
  if seen.present.any():
    return fitting.fit_on(grown.fit, *known, **options)
  rows = {
    name: np.repeat(getattr(grown.fit, name)[-1:], len(seen.shot), 0)
    for name in ("expression", "pose")
  }
  lost = np.full(len(seen.shot), np.nan, np.float32)
  return grown.fit._replace(residual=lost, **rows)


def _joined(
  before: TrackedVideo | None, part: TrackedVideo, inner: slice
) -> TrackedVideo:
  """Adds the inner frames of a section to those before."""
  fields = ("expression", "pose", "residual")
  fit = {name: getattr(part.fit, name)[inner] for name in fields}
  track = {
    name: value[inner]
    for name, value in part.track._asdict().items()
    if name not in _ONCE
  }
  if before is not None:
    for rows, known in ((fit, before.fit), (track, before.track)):
      for name in rows:
        rows[name] = np.concatenate([getattr(known, name), rows[name]])
  none = np.zeros((len(track["times"]), 0, 2), np.float32)
  return part._replace(
    fit=part.fit._replace(**fit),
    track=part.track._replace(landmarks=none, **track),
    sight=None,
  )
