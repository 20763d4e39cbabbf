"""Tracks one face through a video: fit, cameras, masks and windows.

t source frames, h height, w width, n audio samples, l landmarks, i identity and
e expression coefficients, r side of a window in pixels, d sides of a look.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.data import track as track_lib
from pir_jax.face import fit_data, fitting, landmarks, masks, morphable, windows
from pir_jax.face.sight import Sight
from pir_jax.media import crops, prefetch, video_reader
from pir_jax.runtime import progress, section_timer
from pir_jax.types import Cameras, InputError

# A longer way to the next picture is not decoded but jumped over.
_JUMP = 5.0  # Seconds.


class TrackedVideo(NamedTuple):
  """A video and one face that was tracked through it.

  Attributes:
    path: of the video.
    video: what its file declares.
    model: the parametric head.
    fit: of the head to every frame.
    track: the fit in the form that is kept on disk.
    num_faces: people seen in the video.
    config: of masks and window.
    sight: what the pictures show of the face; None where they were not looked
      at.
  """

  path: pathlib.Path
  video: video_reader.VideoInfo
  model: morphable.FaceModel
  fit: fitting.Fit
  track: track_lib.Track
  num_faces: int
  config: masks.Config
  sight: Sight | None = None

  whole = True  # Unlike a `growing.Growing`.

  def upto(self, frame: int) -> "TrackedVideo":
    """Returns itself: all frames are known."""
    del frame
    return self

  def finish(self) -> "TrackedVideo":
    """Returns itself."""
    return self

  def close(self) -> None:
    """Ends nothing."""

  @property
  def measured(self) -> Bool[np.ndarray, "t"]:
    """Frames in which the face was seen, not interpolated."""
    return self.track.present & ~self.track.interpolated

  def cameras(self, frames: np.ndarray) -> Cameras:
    """Returns the cameras of some frames' windows."""
    return Cameras(self.track.pose[frames], self.track.intrinsics[frames])

  def mask_cameras(self, frames: np.ndarray) -> Cameras:
    """Returns the cameras of the squares around their masks."""
    return crops.of_part(self.cameras(frames), self.track.mask_window[frames])

  def mask_square(self, frame: int) -> Float[np.ndarray, "3"]:
    """Returns the square around a frame's mask, in pixels of the source."""
    part = self.track.mask_window[frame]
    return crops.inside(self.track.window[frame], part)

  def face_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """Returns what the inpainting network must fill in."""
    near = masks.neighbours(
      self.track.times,
      self.track.present,
      frames,
      self.config.spread_seconds,
      self.track.shot,
    )
    window = self.track.window[frames]
    return masks.face_mask(
      self.model,
      self.fit,
      window,
      side,
      self.config,
      frames=frames,
      near=near,
      resampled=True,
    )

  def head_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """Returns where the tri-plane should explain the picture."""
    return masks.head_mask(*self._of(frames), side, self.config)

  def mouth_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """Returns the lips at rest and at their widest."""
    return masks.mouth_mask(*self._of(frames), side, self.config)

  def crops(
    self, frames: np.ndarray, side: int
  ) -> Iterator[tuple[int, UInt8[np.ndarray, "r r 3"]]]:
    """Yields (frame, its window) for some frames, in order."""
    wanted = set(int(frame) for frame in frames)
    decoded = prefetch.taken(video_reader.read_frames(self.path))
    for index, (_, image) in enumerate(decoded):
      if index in wanted:
        window = self.track.window[index]
        yield index, crops.crop_window(image, window, side)

  def pictures(
    self, frames: Sequence[int] | Int[np.ndarray, "_"]
  ) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yields (frame, picture) of a few frames, in order; jumps over gaps."""
    reader, at = None, 0.0
    for index in sorted(int(frame) for frame in frames):
      wanted = float(self.track.times[index])
      if reader is None or wanted - at > _JUMP:
        reader = video_reader.read_frames(self.path, start=wanted)
      for moment, image in reader:
        at = float(moment)
        # Half a millisecond: times went through floats.
        if at > wanted - 5e-4:
          yield index, image
          break

  def landmarks(self, frame: int) -> Float[np.ndarray, "l 2"]:
    """Returns the landmarks of a frame in source pixels."""
    window = self.track.window[frame]
    corner = window[:2] - window[2] / 2
    points = self.track.landmarks[frame][:, :2] * window[2] + corner
    return np.asarray(points, np.float64)

  def audio(self) -> Float[np.ndarray, "n"]:
    """Returns the sound, mono at SAMPLE_RATE; empty where there is none."""
    if not self.video.has_audio:
      return np.zeros(0, np.float32)
    return video_reader.read_audio(self.path)

  def _of(self, frames: np.ndarray):
    """Returns model, fit and windows of some frames."""
    fit = self.fit._replace(pose=self.fit.pose[frames])
    return self.model, fit, self.track.window[frames]


def face_of(text: str) -> int | str:
  """Reads a user's choice of a face: a number, or the path of a picture."""
  return int(text) if text.isdecimal() else os.path.abspath(text)


def track(
  path: str | pathlib.Path,
  *,
  video: video_reader.VideoInfo | None = None,
  face: int | str | pathlib.Path | None = 0,
  expected: Float[np.ndarray, "d"] | None = None,
  refuse: bool = True,
  identity: Float[np.ndarray, "i"] | None = None,
  config: masks.Config | None = None,
  phases: section_timer.SectionTimer | None = None,
  model: morphable.FaceModel | None = None,
  seconds: float | None = None,
) -> TrackedVideo:
  """Detects, tracks and fits one face.

  Args:
    path: of the video.
    video: what its file declares, where the caller has probed it already.
    face: which one, counted from the largest, or a picture of the person, or
      None for who looks like the expected one.
    expected: look of who should be seen.
    refuse: anyone else.
    identity: of a person already known; None estimates it.
    config: of masks and window.
    phases: collects how long each part took.
    model: the parametric head; None is the open one.
    seconds: of the video that are looked at; None is all of it.

  Raises:
    InputError: the video cannot be read, shows no such face, or another person
      than expected.
  """
  path = pathlib.Path(path)
  config = config or masks.Config()
  phases = phases or section_timer.SectionTimer()
  video = video or video_reader.probe(path)
  times: list[float] = []

  def frames() -> Iterator[np.ndarray]:
    with contextlib.closing(
      prefetch.taken(video_reader.read_frames(path))
    ) as all_:
      for at, image in all_:
        if seconds is not None and at >= seconds:
          return
        times.append(float(at))
        yield image

  rate = float(video.rate)
  total = video.num_frames or round(video.duration * rate)
  if seconds is not None:
    total = min(total, round(seconds * rate))
  begin = time.perf_counter()
  seen = progress.track(frames(), "tracking the face", total)
  tracked = landmarks.track(
    seen, face=face, expected=expected, refuse=refuse, fps=rate
  )
  phases.add("detect and track", time.perf_counter() - begin, len(times))
  measured = tracked.present & ~tracked.interpolated
  if not measured.any():
    raise InputError(
      f"{path} shows no face: choose a video in which one can be seen."
    )
  model = model or morphable.load()
  progress.say(f"fitting the head to {len(times)} frames")
  with phases.measure("fit", len(times)):
    fit = fitting.fit(
      tracked.landmarks,
      tracked.present,
      (video.height, video.width),
      model,
      identity=identity,
      fps=rate,
      shot=tracked.shot,
    )
  return assembled(
    (path, video, model, config), np.asarray(times), tracked, fit
  )


def assembled(
  of: tuple[
    pathlib.Path, video_reader.VideoInfo, morphable.FaceModel, masks.Config
  ],
  times: Float[np.ndarray, "t"],
  seen: landmarks.Track,
  fit: fitting.Fit,
  before: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]
  | tuple[None, None] = (None, None),
) -> TrackedVideo:
  """Joins what was seen of a video, or of a section of it, and its fit.

  Args:
    of: path and declaration of the video, the head, and what is masked.
    times: of the frames, in seconds.
    seen: the face's landmarks, which are changed in place.
    fit: of the head to them.
    before: windows, and squares around the masks, of the first frames, from
      the section before; see `windows`.
  """
  path, video, model, config = of
  rate, measured = float(video.rate), seen.present & ~seen.interpolated
  window = windows.window(
    model, fit, rate, config, shot=seen.shot, before=before[0]
  )
  cameras = windows.cameras_of(fit, window)
  stored = track_lib.Track(
    times=times,
    present=seen.present,
    interpolated=seen.interpolated,
    pose=np.asarray(cameras.pose, np.float32),
    intrinsics=np.asarray(cameras.intrinsics, np.float32),
    expression=np.asarray(fit.expression, np.float32),
    identity=np.asarray(fit.identity, np.float32),
    window=window,
    mask_window=windows.mask_window(
      model, fit, window, rate, config, shot=seen.shot, before=before[1]
    ),
    landmarks=_in_window(seen.landmarks, window),
    error=np.where(measured, fit.residual, np.nan).astype(np.float32),
    face_height=np.where(measured, _height(seen.box), np.nan),
    shot=seen.shot,
    look=seen.look,
  )
  return TrackedVideo(
    path, video, model, fit, stored, seen.num_faces, config, seen.sight
  )


def _height(box: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t"]:
  return (box[:, 3] - box[:, 1]).astype(np.float32)


def _in_window(
  points: Float[np.ndarray, "t l 3"], window: Float[np.ndarray, "t 3"]
) -> Float[np.ndarray, "t l 2"]:
  """Converts pixels to units of the window, in place."""
  # A long clip's landmarks lie in a temporary file, of which one is enough.
  corner = window[:, None, :2] - window[:, None, 2:] / 2
  for part in fit_data.chunks(len(points)):
    points[part, :, :2] -= corner[part]
    points[part, :, :2] /= window[part, None, 2:]
    landmarks.release(points)
  return points[..., :2]
