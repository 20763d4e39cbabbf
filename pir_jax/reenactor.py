"""The three trained networks of one person, ready to speak and to paint."""

import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from pir_jax import footage, runs
from pir_jax.data import palindrome, speech, windows
from pir_jax.face import masks
from pir_jax.stages import inpainting
from pir_jax.types import Cameras, FaceSpace, InputError

_CHUNK = 32  # Frames in memory at once.


class Reenactor:
  """Speech -> expression -> feature image -> painted window.

  Attributes:
    space: of the coefficients.
    resolution: side of the windows it takes and paints.
    identity: of the person, as prepared.
  """

  def __init__(
    self,
    model: pathlib.Path,
    identity: Float[np.ndarray, "i"],
    *,
    batch_size: int = 8,
  ):
    """Opens the runs `expression`, `triplane`, `inpainting` in a folder.

    Raises:
      InputError: one is missing, or they were trained on different data.
    """
    self._speech = runs.open_run(model / "expression")
    self._picture = runs.open_run(model / "inpainting")
    self.space: FaceSpace = self._picture.space
    if self.space.expression_names != self._speech.space.expression_names:
      raise InputError(
        f"the runs in {model} were trained with different face models: train "
        "them again on one data set."
      )
    self.identity = np.asarray(identity, np.float32)
    self.resolution = self._picture.experiment.data.resolution
    self._batch_size = batch_size

  def speak(self, waveform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "t e"]:
    """Raw expressions at FRAME_RATE for speech at SAMPLE_RATE."""
    return self._speech.stage.predict(
      self._speech.state, speech.level(waveform), self.identity
    )

  def paint(
    self,
    image: Float[np.ndarray, "b h w 3"],
    mask: Float[np.ndarray, "b h w 1"],
    cameras: Cameras,
    expression: Float[np.ndarray, "b e"],
  ) -> Float[np.ndarray, "b h w 3"]:
    """Windows in [-1, 1] with the face painted anew.

    Args:
      image: the windows; what lies under the mask is never looked at.
      mask: 1 where the network paints.
      cameras: of the windows.
      expression: raw coefficients to show.
    """
    identity = np.repeat(self.identity[None], len(image), 0)
    conditions = inpainting.Conditions(identity, expression, cameras)
    given = (image, mask, conditions)
    parts = []
    for start in range(0, len(image), self._batch_size):
      part = jax.tree.map(lambda x: x[start : start + self._batch_size], given)  # noqa: B023
      num = len(part[0])
      # One batch size is one compiled program; the filling is thrown away.
      rest = self._batch_size - num
      part = jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], rest, 0)]),  # noqa: B023
        part,
      )
      painted = self._picture.stage.paint(self._picture.state, *part)
      parts.append(np.asarray(painted)[:num])
    return np.concatenate(parts)


def repaint(
  actor: Reenactor,
  seen: footage.Footage,
  wanted: Float[np.ndarray, "count e"],
  kept: Bool[np.ndarray, "e"],
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
  """Yields (frame, the same painted); without a face, the very same.

  Args:
    actor: who paints.
    seen: the video; it plays there and back as long as is wanted.
    wanted: expression of each frame to be made.
    kept: coefficients that are left as the source frame has them.
  """
  side = actor.resolution
  source = palindrome.read(seen.path, seen.track.times, len(wanted))
  for start in range(0, len(wanted), _CHUNK):
    expression = wanted[start : start + _CHUNK]
    part = [next(source) for _ in expression]
    index = np.array([i for i, _ in part])
    with_face = np.flatnonzero(seen.track.present[index])
    painted = {}
    if len(with_face):
      chosen = index[with_face]
      cover = seen.face_masks(chosen, side)
      crops = [
        windows.crop_window(part[i][1], seen.track.window[index[i]], side)
        for i in with_face
      ]
      images = actor.paint(
        np.stack(crops).astype(np.float32) / 127.5 - 1,
        cover[..., None].astype(np.float32),
        seen.cameras(chosen),
        np.where(kept, seen.track.expression[chosen], expression[with_face]),
      )
      patches = zip(to_bytes(images), masks.feather(cover), strict=True)
      painted = dict(zip(with_face, patches, strict=True))
    for i, (number, frame) in enumerate(part):
      if i in painted:
        window = seen.track.window[number]
        yield frame, windows.blend_window(frame, window, *painted[i])
      else:
        yield frame, frame


def to_bytes(
  images: Float[np.ndarray, "*b h w 3"],
) -> UInt8[np.ndarray, "*b h w 3"]:
  """Images in [-1, 1] (cut off there) as bytes."""
  return np.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
