"""Array records that cross rooms, and the one error a user may see.

b batch, h height, w width, t video frames, n audio samples, i identity
coefficients, e expression coefficients.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

AnyArray = jax.Array | np.ndarray

SAMPLE_RATE = 16000  # Hz: what every speech encoder here was trained on.
FRAME_RATE = 25  # frames a second at which the networks learn (paper: p = 25).


class InputError(ValueError):
  """An input of the user is wrong; the message is one sentence with the fix.

  Commands print it without a traceback and leave with a non-zero exit code.
  """


class ConfigError(InputError):
  """A size or an option in a config is wrong."""


class Cameras(NamedTuple):
  """Pinhole cameras on the head, OpenCV axes (x right, y down, z ahead).

  Attributes:
    pose: camera-to-world, rigid; the world is the head's own frame, in head
      units (the head fits the box [-0.5, 0.5]^3).
    intrinsics: K in units of the window: (u, v) = (0, 0) is the window's upper
      left corner and (1, 1) its lower right one, whatever the resolution.
  """

  pose: Float[AnyArray, "*b 4 4"]
  intrinsics: Float[AnyArray, "*b 3 3"]


class FaceBatch(NamedTuple):
  """Frames of the window with what is known of the face in them.

  Attributes:
    image: RGB in [-1, 1].
    mask: 1 where the inpainting network must inpaint (the face), else 0.
    head: 1 on the head, where the tri-plane is asked to explain the image.
    mouth: 1 on the lips at their widest opening; losses may weigh it.
    eyes: 1 on the eyes and their lids, likewise.
    cameras: of the window.
    identity: coefficients of the face model, in sigma units.
    expression: coefficients of the face model, raw (not standardised).
    index: number of the frame in its split, over all clips.
  """

  image: Float[AnyArray, "b h w 3"]
  mask: Float[AnyArray, "b h w 1"]
  head: Float[AnyArray, "b h w 1"]
  mouth: Float[AnyArray, "b h w 1"]
  eyes: Float[AnyArray, "b h w 1"]
  cameras: Cameras
  identity: Float[AnyArray, "b i"]
  expression: Float[AnyArray, "b e"]
  index: Int[AnyArray, "b"]


class FaceSpace(NamedTuple):
  """The coefficients of a data set, and how the networks scale them.

  Attributes:
    identity_size: number of identity coefficients.
    expression_names: one per expression coefficient.
    expression_mean: over the training frames.
    expression_scale: likewise; never zero.
    face_model: sha256 of the model they belong to; "" is the open head.
  """

  identity_size: int
  expression_names: tuple[str, ...]
  expression_mean: Float[AnyArray, "e"]
  expression_scale: Float[AnyArray, "e"]
  face_model: str = ""

  @property
  def expression_size(self) -> int:
    """Number of expression coefficients."""
    return len(self.expression_names)

  def is_like(self, other: "FaceSpace") -> bool:
    """The other's coefficients mean the same: they are of one face model."""
    mine = (self.identity_size, self.expression_names, self.face_model)
    return mine == (
      other.identity_size,
      other.expression_names,
      other.face_model,
    )

  def standardise(
    self, expression: Float[AnyArray, "*b e"]
  ) -> Float[AnyArray, "*b e"]:
    """Raw coefficients -> about zero mean and unit variance."""
    return (expression - self.expression_mean) / self.expression_scale

  def restore(
    self, standardised: Float[AnyArray, "*b e"]
  ) -> Float[AnyArray, "*b e"]:
    """The inverse of `standardise`."""
    return standardised * self.expression_scale + self.expression_mean


class ExpressionStats(NamedTuple):
  """A person's raw expression over the measured training frames of a clip."""

  mean: Float[AnyArray, "*b e"]
  std: Float[AnyArray, "*b e"]


class SpeechBatch(NamedTuple):
  """Speech and the expressions that go with it, at FRAME_RATE.

  Attributes:
    waveform: mono at SAMPLE_RATE, SAMPLE_RATE / FRAME_RATE samples a frame, of
      about zero mean and unit variance over the whole utterance. It may begin
      before the first frame and end after the last one.
    offset: frames of the waveform before the first one.
    length: samples of the waveform that are sound; padding follows.
    expression: raw coefficients.
    valid: 1 for true frames, 0 for padding or frames without a face.
    identity: coefficients of the speaker.
    stats: of the speaker.
  """

  waveform: Float[AnyArray, "b n"]
  offset: Int[AnyArray, "b"]
  length: Int[AnyArray, "b"]
  expression: Float[AnyArray, "b t e"]
  valid: Float[AnyArray, "b t"]
  identity: Float[AnyArray, "b i"]
  stats: ExpressionStats
