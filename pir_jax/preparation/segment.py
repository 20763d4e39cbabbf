"""Chooses the seconds of a long video that are worth learning from.

Looks at a few frames a second; what is chosen is then prepared as any video.
s samples, b pieces, n audio samples, h height and w width of a frame.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.data import hdtf
from pir_jax.face import detector, sight
from pir_jax.media import loudness, prefetch, video_reader
from pir_jax.metrics import detail, lips
from pir_jax.preparation import quality

RATE = 4.0  # Frames a second that are looked at.
STEP = 1.0  # Seconds from the beginning of one piece to the next.
_DETAIL_EVERY = 8  # Samples: sharpness costs more than the rest.
_SOUND = 0.05  # Seconds a level of the sound is of.
_QUIET = 25.0  # dB below the loudest tenth: nobody speaks.
_CHEEKS, _FOREHEAD, _CHIN = (234, 454), 10, 152  # Of MediaPipe's face mesh.


class Samples(NamedTuple):
  """Figures of some frames, NaN where no face is.

  Attributes:
    time: seconds of each.
    opening: of the lips, as a share of face height.
    yaw, pitch: of the head, radians.
    height: of the face, in pixels that carry detail; NaN between measurements.
  """

  time: Float[np.ndarray, "s"]
  opening: Float[np.ndarray, "s"]
  yaw: Float[np.ndarray, "s"]
  pitch: Float[np.ndarray, "s"]
  height: Float[np.ndarray, "s"]


@dataclasses.dataclass(kw_only=True, slots=True)
class Piece:
  """A part of a video, and why it.

  Attributes:
    start, end: seconds, the end not included.
    whole: seconds of the video.
    seen: share of the time with a face.
    speech: share of the time with sound that is not a pause; 1 for a silent
      video.
    mouth: std of the lips' opening, as a share of face height.
    pose: std of the head's turns, degrees.
    height: of the face, median, in pixels that carry detail.
  """

  start: float
  end: float
  whole: float
  seen: float
  speech: float
  mouth: float
  pose: float
  height: float

  def why(self) -> str:
    """Returns the reasons in a sentence."""
    return (
      f"{self.end - self.start:.0f} s of {self.whole:.0f} s were chosen, from "
      f"{self.start:.0f} s on: a face in {self.seen:.0%} of the time, speech "
      f"in {self.speech:.0%}, lips that move {self.mouth:.1%} of its height, "
      f"turns of {self.pose:.1f} degrees, a face of {self.height:.0f} px."
    )


def choose(
  video: str | pathlib.Path, seconds: float
) -> tuple[hdtf.Cut, Piece] | None:
  """Chooses the best piece of a video; None where it is no longer than that.

  Of the pieces with a face and speech, that with the most variety of mouths and
  poses and the sharpest face: each figure as a share of the best piece's.

  Args:
    video: to choose from.
    seconds: length of the piece.

  Raises:
    InputError: the video cannot be read.
  """
  info = video_reader.probe(video)
  if info.duration <= seconds + STEP:
    return None
  sound = (
    video_reader.read_audio(video) if info.has_audio else np.zeros(0, "f4")
  )
  pieces = compare(look(video), sound, info.duration, seconds)
  best = pieces[int(np.argmax(scores(pieces)))]
  name = f"{pathlib.Path(video).stem}_{best.start:.0f}s"
  return hdtf.Cut(name=name, start=best.start, end=best.end), best


def look(video: str | pathlib.Path) -> Samples:
  """Looks at RATE frames a second of a video."""
  tracker, rows, due = detector.Tracker(), [], 0.0
  for at, image in prefetch.taken(video_reader.read_frames(video)):
    if float(at) < due:
      continue
    due = float(at) + 1 / RATE - 1e-3
    rows.append((float(at), *_figures(image, tracker, len(rows))))
  return Samples(*np.array(rows, np.float64).reshape(-1, 5).T)


def _figures(
  image: UInt8[np.ndarray, "h w 3"], tracker: detector.Tracker, number: int
) -> tuple[float, float, float, float]:
  points, presence = tracker.landmarks(image)
  if not presence or sight.measure(image, points)[0] < 0:
    return (np.nan,) * 4
  points = points.astype(np.float64)
  height = np.ptp(points[:, 1])
  across = points[_CHEEKS[1]] - points[_CHEEKS[0]]
  down = points[_CHIN] - points[_FOREHEAD]
  yaw, pitch = np.arctan2(across[2], across[0]), np.arctan2(down[2], down[1])
  sharp = np.nan
  if number % _DETAIL_EVERY == 0:
    crop, mask = quality.face_crop(image, points[:, :2])
    sharp = height / detail.finest(crop, mask) if mask.any() else np.nan
  return lips.opening(points[:, :2]) / height, yaw, pitch, sharp


def compare(
  samples: Samples,
  sound: Float[np.ndarray, "n"],
  whole: float,
  seconds: float,
) -> list[Piece]:
  """Measures every piece of a video.

  Args:
    samples: of the video.
    sound: of it; empty where there is none.
    whole: seconds of the video.
    seconds: of a piece.
  """
  levels = loudness.frame_levels(sound, _SOUND)
  loud = levels > np.percentile(levels, 90) - _QUIET if len(levels) else None
  pieces = []
  for start in np.arange(0, whole - seconds + 1e-6, STEP):
    stop = start + seconds
    inside = (samples.time >= start) & (samples.time < stop)
    part = Samples(*(values[inside] for values in samples))
    seen = np.isfinite(part.opening)
    speech = 1.0
    if loud is not None:
      within = loud[int(start / _SOUND) : int(stop / _SOUND)]
      speech = float(within.mean()) if len(within) else 0.0
    known = Samples(*(values[seen] for values in part))
    turns = np.degrees([_std(known.yaw), _std(known.pitch)])
    sharp = known.height[np.isfinite(known.height)]
    pieces.append(
      Piece(
        start=float(start),
        end=float(stop),
        whole=whole,
        seen=float(seen.mean()) if len(seen) else 0.0,
        speech=speech,
        mouth=_std(known.opening),
        pose=float(np.hypot(*turns)),
        height=float(np.median(sharp)) if len(sharp) else 0.0,
      )
    )
  return pieces


def _std(values: Float[np.ndarray, "_"]) -> float:
  return float(values.std()) if len(values) else 0.0


def scores(pieces: list[Piece]) -> Float[np.ndarray, "b"]:
  """Ranks pieces: the more the better."""
  shares = []
  for name in ("mouth", "pose", "height"):
    values = np.array([getattr(piece, name) for piece in pieces])
    shares.append(values / max(values.max(), 1e-9))
  usable = np.array([piece.seen * piece.speech for piece in pieces])
  return usable * np.mean(shares, axis=0)
