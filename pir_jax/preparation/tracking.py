"""A video as the networks need it: where the face is, in numbers and masks.

t source frames, i identity and e expression coefficients, r side of a window
in pixels.
"""

import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pir_jax.data import track
from pir_jax.face import fit_data, fitting, landmarks, masks, morphable
from pir_jax.media import crops, prefetch, video_reader
from pir_jax.runtime import section_timer
from pir_jax.types import Cameras, InputError


class Footage(NamedTuple):
  """A video and what is known of one face in it.

  Attributes:
    path: of the video.
    video: what the file says of itself.
    model: the parametric head.
    fit: of the head to every frame.
    track: the same in the form that is kept on disk.
    num_faces: people seen in the video.
    config: of masks and window.
  """

  path: pathlib.Path
  video: video_reader.VideoInfo
  model: morphable.FaceModel
  fit: fitting.Fit
  track: track.Track
  num_faces: int
  config: masks.Config

  @property
  def measured(self) -> Bool[np.ndarray, "t"]:
    """Frames in which the face was seen, not guessed from its neighbours."""
    return self.track.present & ~self.track.interpolated

  def cameras(self, frames: np.ndarray) -> Cameras:
    """Cameras of the windows of some frames."""
    return Cameras(self.track.pose[frames], self.track.intrinsics[frames])

  def face_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """What the inpainting network must paint."""
    near = masks.neighbours(
      self.track.times,
      self.track.present,
      frames,
      self.config.spread_seconds,
      self.track.shot,
    )
    window = self.track.window[frames]
    return masks.face_mask(
      self.model, self.fit, window, side, self.config, near=near
    )

  def head_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """Where the tri-plane should explain the picture."""
    return masks.head_mask(*self._of(frames), side, self.config)

  def mouth_masks(
    self, frames: np.ndarray, side: int
  ) -> Bool[np.ndarray, "t r r"]:
    """The lips at rest and at their widest."""
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

  def _of(self, frames: np.ndarray):
    """Model, fit and windows of some frames."""
    fit = self.fit._replace(pose=self.fit.pose[frames])
    return self.model, fit, self.track.window[frames]


def analyse(
  path: str | pathlib.Path,
  *,
  face: int | str | pathlib.Path = 0,
  identity: Float[np.ndarray, "i"] | None = None,
  config: masks.Config | None = None,
  phases: section_timer.Phases | None = None,
  model: morphable.FaceModel | None = None,
) -> Footage:
  """Finds, follows and fits one face.

  Args:
    path: of the video.
    face: which one, counted from the largest, or a picture of the person.
    identity: of a person already known; None estimates it.
    config: of masks and window.
    phases: told how long each part took.
    model: the parametric head; None is the open one.

  Raises:
    InputError: the video cannot be read, or shows no such face.
  """
  path = pathlib.Path(path)
  config = config or masks.Config()
  phases = phases or section_timer.Phases()
  video = video_reader.probe(path)
  times: list[float] = []

  def frames() -> Iterator[np.ndarray]:
    for at, image in prefetch.taken(video_reader.read_frames(path)):
      times.append(float(at))
      yield image

  rate = float(video.rate)
  begin = time.perf_counter()
  found = landmarks.track(frames(), face=face, fps=rate)
  phases.add("find and follow", time.perf_counter() - begin, len(times))
  measured = found.present & ~found.interpolated
  if not measured.any():
    raise InputError(
      f"{path} shows no face: choose a video in which one can be seen."
    )
  model = model or morphable.load()
  with phases.measure("fit", len(times)):
    fit = fitting.fit(
      found.landmarks,
      found.present,
      (video.height, video.width),
      model,
      identity=identity,
      fps=rate,
      shot=found.shot,
    )
  window = masks.window(model, fit, rate, config, shot=found.shot)
  cameras = masks.cameras_of(fit, window)
  known = track.Track(
    times=np.asarray(times),
    present=found.present,
    interpolated=found.interpolated,
    pose=np.asarray(cameras.pose, np.float32),
    intrinsics=np.asarray(cameras.intrinsics, np.float32),
    expression=np.asarray(fit.expression, np.float32),
    identity=np.asarray(fit.identity, np.float32),
    window=window,
    landmarks=_in_window(found.landmarks, window),
    error=np.where(measured, fit.residual, np.nan).astype(np.float32),
    face_height=np.where(measured, _height(found.box), np.nan),
    shot=found.shot,
  )
  return Footage(path, video, model, fit, known, found.num_faces, config)


def _height(box: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t"]:
  return (box[:, 3] - box[:, 1]).astype(np.float32)


def _in_window(
  points: Float[np.ndarray, "t l 3"], window: Float[np.ndarray, "t 3"]
) -> Float[np.ndarray, "t l 2"]:
  """Pixels to units of the window; in the place of x and y where these are."""
  # A long clip's landmarks lie in a temporary file, of which one is enough.
  corner = window[:, None, :2] - window[:, None, 2:] / 2
  for part in fit_data.chunks(len(points)):
    points[part, :, :2] -= corner[part]
    points[part, :, :2] /= window[part, None, 2:]
    landmarks.release(points)
  return points[..., :2]
