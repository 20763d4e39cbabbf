"""A prepared clip on disk: written whole or not at all, and its records.

h stored side of the window, t source frames, k ticks of FRAME_RATE, n audio
samples, i identity and e expression coefficients, l landmarks.
"""

import io
import math
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import grain
import numpy as np
import safetensors.numpy
from array_record.python import array_record_module
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from pir_jax.data import timing
from pir_jax.data.manifest import Manifest
from pir_jax.data.track import Track, check_track, save_track
from pir_jax.media import prefetch
from pir_jax.media.video_reader import VideoInfo
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

FRAMES = "frames-00000-of-00001.array_record"
CLIPS = "clips-00000-of-00001.array_record"
SAMPLES_PER_TICK = SAMPLE_RATE // FRAME_RATE
# Ticks without a face that end a run: a shorter gap stays inside it, marked.
LONGEST_GAP = FRAME_RATE
# Seconds; a picture that stood still for longer was not measured.
LONGEST_HOLD = 0.4
LONGEST_RUN = 60 * FRAME_RATE  # Ticks; bounds what is read at once.
CLOSED_SHARE = 0.05  # Of the frames: those whose lips count as closed.


class Frame(NamedTuple):
  """The window of one source frame, as it is stored.

  Attributes:
    index: of the source frame.
    image: RGB.
    mask: the face, which the network must inpaint.
    head: the head.
    mouth: the lips at their widest opening.
  """

  index: int
  image: UInt8[np.ndarray, "h h 3"]
  mask: Bool[np.ndarray, "h h"]
  head: Bool[np.ndarray, "h h"]
  mouth: Bool[np.ndarray, "h h"]


class Clip(NamedTuple):
  """A run of ticks with the sound that belongs to it.

  Attributes:
    start: tick of the whole video at which the run starts.
    expression: raw coefficients at FRAME_RATE.
    valid: every frame behind the value was measured, and it has sound.
    waveform: mono at SAMPLE_RATE, SAMPLES_PER_TICK samples a tick.
    identity: coefficients of the speaker.
  """

  start: int
  expression: Float[np.ndarray, "k e"]
  valid: Bool[np.ndarray, "k"]
  waveform: Float[np.ndarray, "n"]
  identity: Float[np.ndarray, "i"]


def _lossless(array: np.ndarray) -> np.ndarray:
  """WebP: half of PNG's time at its quickest, and two thirds of its bytes."""
  buffer = io.BytesIO()
  picture = Image.fromarray(array)
  picture.save(buffer, format="webp", lossless=True, quality=0, method=0)
  return np.frombuffer(buffer.getvalue(), np.uint8)


def _png(mask: Bool[np.ndarray, "h h"]) -> np.ndarray:
  buffer = io.BytesIO()
  picture = Image.fromarray(mask.astype(np.uint8) * 255)
  picture.save(buffer, format="png", compress_level=1)
  return np.frombuffer(buffer.getvalue(), np.uint8)


def encode_frame(frame: Frame, track: Track) -> bytes:
  """Encodes a frame record: pictures without loss, arrays as they are."""
  t = frame.index
  return safetensors.numpy.save(
    {
      "image": _lossless(frame.image),
      "mask": _png(frame.mask),
      "head": _png(frame.head),
      "mouth": _png(frame.mouth),
      "pose": np.array(track.pose[t], np.float32),
      "intrinsics": np.array(track.intrinsics[t], np.float32),
      "expression": np.array(track.expression[t], np.float32),
      "landmarks": np.array(track.landmarks[t], np.float32),
      "index": np.array([t], np.int64),
      "time": np.array([track.times[t]], np.float64),
    }
  )


def decode_picture(encoded: UInt8[np.ndarray, "n"]) -> Image.Image:
  """Decodes a picture of a frame record."""
  return Image.open(io.BytesIO(encoded.tobytes()))


def encode_clip(clip: Clip) -> bytes:
  """Encodes a clip record."""
  arrays = {k: np.ascontiguousarray(v) for k, v in clip._asdict().items()}
  return safetensors.numpy.save(arrays | {"start": np.array([clip.start])})


def decode_clip(record: bytes) -> Clip:
  """The inverse of encode_clip."""
  arrays = safetensors.numpy.load(record)
  return Clip(**arrays | {"start": int(arrays["start"][0])})


def in_step(clip: Clip, shift: int) -> Clip:
  """Cuts what is left of a run whose sound comes `shift` ticks late."""
  if not shift:
    return clip
  early, late = max(-shift, 0), max(shift, 0)
  num_ticks = max(len(clip.valid) - abs(shift), 0)
  ticks, sound = slice(early, early + num_ticks), late * SAMPLES_PER_TICK
  return clip._replace(
    start=clip.start + early,
    expression=clip.expression[ticks],
    valid=clip.valid[ticks],
    waveform=clip.waveform[sound:][: num_ticks * SAMPLES_PER_TICK],
  )


def open_records(
  path: pathlib.Path,
) -> grain.sources.ArrayRecordDataSource:
  """The records of a file, by number.

  Raises:
    InputError: no such file.
  """
  if not path.is_file():
    raise InputError(f"{path} is missing: prepare the video again.")
  return grain.sources.ArrayRecordDataSource(str(path))


def cut_clips(track: Track, waveform: Float[np.ndarray, "n"]) -> Iterator[Clip]:
  """Runs of ticks with a face and sound, each from first to last valid tick.

  A run longer than LONGEST_RUN is several, one at once after the other.

  Args:
    track: of the whole video.
    waveform: mono at SAMPLE_RATE from the time of the first frame; empty for a
      silent video, which has no runs.
  """
  ticks = timing.tick_times(track.times)
  known = track.present & ~track.interpolated
  # Absent frames may hold anything, NaN included.
  values = np.where(known[:, None], track.expression, 0).astype(np.float32)
  expression, valid = timing.interpolate(
    track.times, values, known, ticks, longest=LONGEST_HOLD
  )
  valid &= np.arange(1, len(ticks) + 1) * SAMPLES_PER_TICK <= len(waveform)
  where = np.flatnonzero(valid)
  if not len(where):
    return
  breaks = np.flatnonzero(np.diff(where) > LONGEST_GAP + 1) + 1
  for run in np.split(where, breaks):
    for start, stop in _parts(int(run[0]), int(run[-1]) + 1):
      sound = waveform[start * SAMPLES_PER_TICK : stop * SAMPLES_PER_TICK]
      yield Clip(
        start=start,
        expression=expression[start:stop],
        valid=valid[start:stop],
        waveform=np.array(sound, np.float32),
        identity=track.identity.astype(np.float32),
      )


def _parts(start: int, stop: int) -> Iterator[tuple[int, int]]:
  """Equal parts, as few as make none of them longer than LONGEST_RUN."""
  num_parts = math.ceil((stop - start) / LONGEST_RUN)
  edges = np.linspace(start, stop, num_parts + 1).round().astype(int)
  yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _manifest(
  track,
  waveform,
  video,
  names,
  indices,
  num_clips,
  side,
  opening,
  masks,
  face_model,
) -> Manifest:
  measured = track.present & ~track.interpolated
  edge = timing.held_out_start(track.times)
  train = track.expression[:edge][measured[:edge]]
  by_opening = np.argsort(opening[:edge][measured[:edge]])
  closed = train[by_opening[: math.ceil(CLOSED_SHARE * len(train))]]
  if not len(train):
    raise InputError(
      f"{video.name} shows no face to learn from in its training part: choose"
      " a clip in which one face can be seen (`prepare --check` names what"
      " hides it)."
    )
  error = track.error[measured]
  relative = error / track.face_height[measured]
  sides = track.window[track.present, 2]
  return Manifest(
    source=video.name,
    sha256=video.sha256,
    width=video.width,
    height=video.height,
    rate=f"{video.rate.numerator}/{video.rate.denominator}",
    duration=timing.duration(track.times),
    num_frames=len(track.times),
    num_with_face=int(measured.sum()),
    num_interpolated=int(track.interpolated.sum()),
    num_records=len(indices),
    num_clips=num_clips,
    resolution=side,
    window_side=[float(sides.min()), float(sides.max())],
    fit_error_px=float(np.sqrt(np.mean(error**2))),
    fit_error_relative=float(np.sqrt(np.mean(relative**2))),
    train=[0, edge],
    held_out=[edge, len(track.times)],
    expression_names=list(names),
    expression_mean=train.mean(0).astype(float).tolist(),
    expression_std=train.std(0).astype(float).tolist(),
    expression_closed=closed.mean(0).astype(float).tolist(),
    identity=track.identity.astype(float).tolist(),
    masks=masks,
    audio_seconds=len(waveform) / SAMPLE_RATE,
    face_model=face_model,
  )


def _write_frames(path, frames: Iterable[Frame], track: Track):
  """Writes frame records one by one; returns their indices and side."""
  indices: list[int] = []
  sides: list[int] = []

  def checked() -> Iterator[Frame]:
    for frame in frames:
      _check_frame(frame, track, indices, sides)
      indices.append(frame.index)
      sides.append(frame.image.shape[0])
      yield frame

  # Groups of one record: random access then reads no neighbour.
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  try:
    for record in prefetch.done(lambda x: encode_frame(x, track), checked()):
      writer.write(record)
  finally:
    writer.close()
  if not sides:
    raise InputError("no frame shows a face: choose another clip.")
  return np.array(indices, np.int64), sides[0]


def _check_frame(frame, track, indices, sides) -> None:
  side = frame.image.shape[0]
  if sides and side != sides[0]:
    raise ValueError(
      f"frame {frame.index} is {side} px and the first one {sides[0]}: give all"
      " frames one size"
    )
  if not track.present[frame.index]:
    raise ValueError(
      f"frame {frame.index} has no face in the track: leave it out"
    )
  if indices and frame.index <= indices[-1]:
    raise ValueError(
      f"frame {frame.index} follows {indices[-1]}: give frames in order, each"
      " once"
    )


def _write_clips(path: pathlib.Path, clips: Iterable[Clip]) -> int:
  """Writes clip records one by one; returns how many they are."""
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  count = 0
  try:
    for clip in clips:
      writer.write(encode_clip(clip))
      count += 1
  finally:
    writer.close()
  return count


def write_dataset(
  path: str | pathlib.Path,
  track: Track,
  frames: Iterable[Frame],
  waveform: Float[np.ndarray, "n"],
  *,
  opening: Float[np.ndarray, "t"],
  video: VideoInfo,
  expression_names: tuple[str, ...] | list[str],
  masks: dict[str, float | str] | None = None,
  face_model: dict[str, str] | None = None,
  overwrite: bool = False,
) -> Manifest:
  """Writes a prepared clip: manifest, frame records, clip records, track.

  Everything goes to a hidden folder beside `path` that is renamed at the end,
  so `path` holds all of it or does not exist.

  Args:
    path: folder to make.
    track: of every source frame.
    frames: windows of the frames to learn from (see timing.select_frames), in
      order; taken one by one, so a generator keeps memory flat.
    waveform: mono at SAMPLE_RATE from the time of the first frame, or empty.
    opening: of the lips in every source frame, in any unit: where it is least
      they are closed.
    video: from video_reader.probe.
    expression_names: one per coefficient.
    masks: settings of those in the frames, to make others alike.
    face_model: name and sha256 of the one that was fitted.
    overwrite: replace a data set that is there.

  Raises:
    InputError: `path` is taken, or no frame shows a face.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise InputError(
      f"{path} is already there: choose another name or delete it first."
    )
  if path.exists() and not (path / "manifest.json").is_file():
    raise InputError(
      f"{path} is not a prepared clip, so it is not replaced: choose another"
      " name."
    )
  check_track(track)
  if len(expression_names) != track.expression.shape[1]:
    raise ValueError(
      f"{len(expression_names)} expression names for"
      f" {track.expression.shape[1]} coefficients: give one name each"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.parent / f".{uuid.uuid4().hex}.part"
  part.mkdir()
  try:
    indices, side = _write_frames(part / FRAMES, frames, track)
    num_clips = _write_clips(part / CLIPS, cut_clips(track, waveform))
    save_track(part, track, indices)
    manifest = _manifest(
      track,
      waveform,
      video,
      expression_names,
      indices,
      num_clips,
      side,
      opening,
      masks or {},
      face_model or {},
    )
    manifest.save(part)
    if path.exists():
      shutil.rmtree(path)
    part.rename(path)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return manifest
