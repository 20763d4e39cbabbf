"""Speech of any length, encoded in overlapping windows of one length.

n audio samples, w frames of a window, s of a piece, o of an overlap, d feature
channels.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Float


def features(
  encode: Callable[..., Float[Array, "1 w d"]],
  waveform: Float[np.ndarray, "n"],
  *,
  num_frames: int,
  window: int,
  margin: int,
  hop: int,
) -> Iterator[Float[np.ndarray, "1 s d"]]:
  """Yields features without their overlap; zeros at the end.

  Args:
    encode: (sound of a window, samples of it that are sound) -> features.
    waveform: the whole speech.
    num_frames: of it.
    window: frames encoded at once.
    margin: half of the overlap in which neighbours are crossfaded.
    hop: samples of a frame.
  """
  stride = window - 2 * margin
  num_windows = 1 + max(0, math.ceil((num_frames - window) / stride))
  end = None
  for i in range(num_windows):
    sound = waveform[i * stride * hop :][: window * hop]
    length = math.ceil(len(sound) / hop) * hop
    sound = np.pad(sound, (0, window * hop - len(sound)))
    part = np.asarray(encode(sound[None], np.int32([length])))
    if end is not None:
      part = _crossfaded(end, part)
    end = part[:, stride:]
    yield part[:, :stride]
  for start in range(0, num_frames - num_windows * stride, stride):
    part = end[:, start : start + stride]
    yield np.pad(part, ((0, 0), (0, stride - part.shape[1]), (0, 0)))


def _crossfaded(
  left: Float[np.ndarray, "1 o d"], right: Float[np.ndarray, "1 w d"]
) -> Float[np.ndarray, "1 w d"]:
  """Fades in the first o frames of `right` while `left` fades out.

  Frame i of the overlap has (i + 1/2) / o of the right: a window of a network
  knows least at its ends, so each end counts least.
  """
  overlap = left.shape[1]
  share = np.float32((np.arange(overlap) + 0.5) / max(overlap, 1))[:, None]
  mixed = left * (1 - share) + right[:, :overlap] * share
  return np.concatenate([mixed, right[:, overlap:]], axis=1)
