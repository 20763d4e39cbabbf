"""Random access to prepared clips, for Grain: frames and windows of speech.

h side of a frame, k ticks of FRAME_RATE in a window, n audio samples, i
identity and e expression coefficients.
"""

import collections
import itertools
import threading
from collections.abc import Sequence

import numpy as np
import safetensors.numpy
from jaxtyping import Bool, Float, Int, UInt8

from pir_jax.data import records, speech_augmentation
from pir_jax.data.dataset import Clip, Dataset, Split
from pir_jax.data.manifest import Paths
from pir_jax.media import crops, speech_waveform
from pir_jax.metrics import lids
from pir_jax.types import FRAME_RATE, Cameras, InputError

MASKS = ("mask", "head", "mouth", "eyes")
_STORED = ("image", "mask", "head", "mouth")
_EYE_CORNERS = np.array([[33, 133], [362, 263]])  # Landmarks.
# Of the median opening; the share of such frames, all ours; and how often a
# frame comes at most, so that one of them is not learnt by heart.
_SHUT, _SHUT_SHARE, _MOST_REPEATS = 0.7, 0.25, 8
_EYE_RADIUS = 0.75  # Of what holds lids and lashes, in widths of the eye.


class FrameSource:
  """Frames of a split of some clips, decoded and resized; one dict an item.

  An item has image (h h 3, [-1, 1]), mask, head, mouth and eyes (h h 1, 0 to
  1), pose, intrinsics, identity, expression, all float32, and index and clip
  (int64: which source frame of which of the clips) and row (int32: which frame
  of the split). Every frame is an item; in training, of speakers whom a list
  names, those who have fewer are there again and again, and so are shut eyes
  where eyes are masked: a blink is short. With `around_mask` of
  the windows only `Track.mask_window` is shown, which is what stage 3 sees.

  Pictures stay in memory as uint8 until `cache_bytes` are used; once full,
  nothing is thrown out, since under shuffling no frame is likelier than
  another.
  """

  def __init__(
    self,
    data: Dataset | Clip | Paths,
    *,
    resolution: int,
    split: Split = "train",
    around_mask: bool = False,
    cache_bytes: int = 2**30,
  ):
    self.resolution = resolution
    self._parts: list[np.ndarray] = []
    self._readers, self._identities = [], []
    self._rows: list[tuple[int, int]] = []
    by_speaker: dict[str, list] = collections.defaultdict(list)
    data = Dataset.open(data)
    for number, clip in enumerate(data):
      rows = clip.rows(split)
      frames = len(self._rows) + np.arange(len(rows))
      self._rows += [(number, int(row)) for row in rows]
      if split == "train" and clip.manifest.masks.get("region") == "face":
        frames = _more_blinks(frames, clip.track.landmarks[clip.stored[rows]])
      by_speaker[clip.speaker] += frames.tolist()
      parts = clip.track.mask_window
      whole = np.broadcast_to(crops.WHOLE, parts.shape)
      self._parts.append(parts if around_mask else whole)
      self._readers.append(clip.frame_records)
      self._identities.append(np.array(clip.manifest.identity, np.float32))
    if not self._rows:
      raise InputError(
        f"{data} has no frame with a face in its {split} part: prepare a"
        " longer clip."
      )
    if split == "train":
      by_speaker = _balanced(by_speaker)
    self._items = [row for rows in by_speaker.values() for row in rows]
    self._cache: dict[int, tuple] = {}
    self._free = cache_bytes
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._items)

  def __repr__(self) -> str:
    return f"FrameSource({len(self)} frames, {self.resolution} px)"

  def _load(self, frame: int) -> tuple:
    clip, row = self._rows[frame]
    arrays = safetensors.numpy.load(self._readers[clip][row])
    stored = {
      n: np.asarray(records.decode_picture(arrays.pop(n))) for n in _STORED
    }
    part = self._parts[clip][arrays["index"][0]]
    image, mask = crops.network_window(
      stored["image"], stored["mask"] > 0, self.resolution, part
    )
    regions = (
      crops.resample_part(stored[name], self.resolution, part)
      for name in ("head", "mouth")
    )
    cameras = Cameras(arrays["pose"], arrays["intrinsics"])
    arrays["intrinsics"] = crops.of_part(cameras, part).intrinsics
    landmarks = (arrays["landmarks"] - part[:2]) / part[2] + 0.5
    eyes = _eyes(landmarks, self.resolution)
    pictures = image, _as_bytes(mask), *regions, _as_bytes(eyes)
    return pictures, arrays | {"clip": np.array([clip], np.int64)}

  def __getitem__(self, item: int) -> dict[str, np.ndarray]:
    frame = self._items[item]
    loaded = self._cache.get(frame)
    if loaded is None:
      loaded = self._load(frame)
      size = sum(picture.nbytes for picture in loaded[0])
      with self._lock:
        if frame not in self._cache and size <= self._free:
          self._cache[frame] = loaded
          self._free -= size
    pictures, arrays = loaded
    clip = int(arrays["clip"][0])
    image, *masks = (picture.astype(np.float32) for picture in pictures)
    return {
      "image": image / 127.5 - 1,
      **{n: m[..., None] / 255 for n, m in zip(MASKS, masks, strict=True)},
      "pose": arrays["pose"],
      "intrinsics": arrays["intrinsics"],
      "identity": self._identities[clip],
      "expression": arrays["expression"],
      "index": arrays["index"][0],
      "clip": arrays["clip"][0],
      "row": np.int32(frame),
    }


def _as_bytes(mask: Bool[np.ndarray, "h h"]) -> UInt8[np.ndarray, "h h"]:
  return np.where(mask, 255, 0).astype(np.uint8)


def _eyes(
  landmarks: Float[np.ndarray, "l 2"], side: int
) -> Bool[np.ndarray, "h h"]:
  """Marks a disc about each eye; none where there are no such landmarks."""
  if len(landmarks) <= _EYE_CORNERS.max():
    return np.zeros((side, side), bool)
  corners = side * landmarks[_EYE_CORNERS]
  radius = _EYE_RADIUS * np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)
  places = np.indices((side, side))[::-1, None] + 0.5  # x, y
  middle = corners.mean(1).T[..., None, None]
  return (np.hypot(*(places - middle)) < radius[:, None, None]).any(0)


def _more_blinks(
  frames: Int[np.ndarray, "t"], landmarks: Float[np.ndarray, "t l 2"]
) -> Int[np.ndarray, "_"]:
  """Repeats the frames with shut eyes until they are a share of all."""
  if landmarks.shape[1] <= _EYE_CORNERS.max():
    return frames
  opening = lids.opening(landmarks)
  shut = frames[opening < _SHUT * np.median(opening)]
  if not len(shut):
    return frames
  wanted = _SHUT_SHARE / (1 - _SHUT_SHARE) * (len(frames) - len(shut))
  times = min(round(wanted / len(shut)), _MOST_REPEATS)
  return np.concatenate([frames, np.tile(shut, max(0, times - 1))])


def cut_window(clip: records.Clip, start: int, num_frames: int) -> records.Clip:
  """Ticks [start, start + num_frames) of a run, zeros (not valid) outside it.

  `start` counts from the run's own start and may be negative.
  """
  total = len(clip.expression)
  low, high = max(start, 0), min(start + num_frames, total)
  rate = records.SAMPLES_PER_TICK
  expression = np.zeros((num_frames, clip.expression.shape[1]), np.float32)
  valid = np.zeros(num_frames, bool)
  waveform = np.zeros(num_frames * rate, np.float32)
  if low < high:
    to = slice(low - start, high - start)
    expression[to] = clip.expression[low:high]
    valid[to] = clip.valid[low:high]
    waveform[to.start * rate : to.stop * rate] = clip.waveform[
      low * rate : high * rate
    ]
  return clip._replace(
    start=clip.start + start,
    expression=expression,
    valid=valid,
    waveform=waveform,
  )


def _training_part(run: records.Clip, edge: int) -> records.Clip:
  """The run before the tick `edge` of the video; may be empty."""
  stop = max(0, edge - run.start)
  return run._replace(
    expression=run.expression[:stop],
    valid=run.valid[:stop],
    waveform=run.waveform[: stop * records.SAMPLES_PER_TICK],
  )


def _training_starts(run: records.Clip, num_frames: int) -> list[int]:
  """Starts of all windows inside the run that hold a valid tick."""
  starts = range(max(1, len(run.valid) - num_frames + 1))
  return [s for s in starts if run.valid[s : s + num_frames].any()]


def _held_out_part(run: records.Clip, edge: int) -> records.Clip:
  """The run with only the ticks from `edge` on valid; the rest is context."""
  ticks = run.start + np.arange(len(run.valid))
  return run._replace(valid=run.valid & (ticks >= edge))


def _held_out_starts(run: records.Clip, num_frames: int) -> list[int]:
  """Windows backwards from the run's end until they cover all valid ticks."""
  starts = []
  start = len(run.valid)
  while run.valid[: max(start, 0)].any():
    start -= num_frames
    starts.append(start)
  return starts[::-1]


def _balanced(rows: dict[str, list]) -> dict[str, list]:
  """Repeats the rows of those who have fewer, so that all have as many."""
  most = max(map(len, rows.values()), default=0)
  return {
    speaker: list(itertools.islice(itertools.cycle(each), most))
    for speaker, each in rows.items()
    if each
  }


class SpeechSource:
  """Windows of `num_frames` ticks of speech; one dict an item.

  An item has waveform (n, levelled over its run; `margin` ticks more than k on
  either side, as far as the run goes), expression (k e), valid (k), identity
  (i), closed, mean and std (e: the person's expression with closed lips, and
  its statistics), all float32; and offset (ticks of the waveform before the
  first of k) and length (its samples before padding), int32. Training: every
  start at which a window fits before the held-out tail, as many for every
  speaker whom a list names. Held out: windows cut backwards from the end of
  each run, the first one reaching back into the training part for context, with
  valid = 0 there. Where a run is too short, zeros with valid = 0 stand for what
  is missing.
  """

  def __init__(
    self,
    data: Dataset | Clip | Paths,
    *,
    num_frames: int,
    margin: int = 0,
    split: Split = "train",
    speeds: Sequence[float] = (1.0,),
  ):
    """Reads the runs.

    Args:
      data: prepared clips.
      num_frames: k.
      margin: ticks of sound that are added on either side.
      split: which part.
      speeds: training runs are there once at each of these, see
        speech_augmentation.at_speed; held-out ones as they are.
    """
    self.num_frames, self.margin = num_frames, margin
    self._runs: list[records.Clip] = []
    self._people: list[dict[str, np.ndarray]] = []
    rows: dict[str, list] = collections.defaultdict(list)
    data = Dataset.open(data)
    for clip in data:
      edge = clip.held_out_tick
      for run in clip.speech():
        run = run._replace(waveform=speech_waveform.normalize(run.waveform))
        if split == "train":
          run = _training_part(run, edge)
          for speed in speeds if len(run.valid) else ():
            changed = speech_augmentation.at_speed(run, speed)
            starts = _training_starts(changed, num_frames)
            rows[clip.speaker] += self._add(changed, clip, starts)
        else:
          run = _held_out_part(run, edge)
          starts = _held_out_starts(run, num_frames)
          rows[clip.speaker] += self._add(run, clip, starts)
    if split == "train":
      rows = _balanced(rows)
    self._rows = [row for each in rows.values() for row in each]
    if not self._rows:
      raise InputError(
        f"{data} has no speech with a face in its {split} part: prepare a"
        " clip with sound, or a longer one."
      )

  def _add(self, run, clip, starts) -> list[tuple[int, int]]:
    self._runs.append(run)
    self._people.append(
      {
        "closed": np.float32(clip.manifest.expression_closed),
        **clip.expression_stats._asdict(),
      }
    )
    return [(len(self._runs) - 1, start) for start in starts]

  def __len__(self) -> int:
    return len(self._rows)

  def __repr__(self) -> str:
    seconds = self.num_frames / FRAME_RATE
    return f"SpeechSource({len(self)} windows of {seconds:g} s)"

  def __getitem__(self, item: int) -> dict[str, np.ndarray]:
    run, start = self._rows[item]
    window = cut_window(self._runs[run], start, self.num_frames)
    # Before a run there is no sound, and no silence is put there.
    first = max(start - self.margin, min(start, 0))
    wide = self.num_frames + 2 * self.margin
    sound = cut_window(self._runs[run], first, wide)
    stop = min(first + wide, len(self._runs[run].expression))
    return {
      "waveform": sound.waveform,
      "offset": np.int32(start - first),
      "length": np.int32((stop - first) * records.SAMPLES_PER_TICK),
      "expression": window.expression,
      "valid": window.valid.astype(np.float32),
      "identity": window.identity,
      **self._people[run],
    }
