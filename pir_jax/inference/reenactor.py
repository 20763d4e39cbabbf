"""The three trained networks of one person, ready to speak and to paint."""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from pir_jax.data import speech_augmentation
from pir_jax.face import masks, morphable
from pir_jax.media import blending, pingpong
from pir_jax.media import crops as crops_lib
from pir_jax.preparation import tracking
from pir_jax.runs.run import open_run
from pir_jax.runtime import checkpoint, section_timer
from pir_jax.stages import inpainting
from pir_jax.types import Cameras, FaceSpace, InputError

_CHUNK = 32  # Frames in memory at once.


class Reenactor:
  """Speech -> expression -> feature image -> painted window.

  Attributes:
    space: of the coefficients.
    resolution: side of the windows it takes and paints.
    identity: of the person, as prepared.
    phases: told how long every batch took.
  """

  def __init__(
    self,
    model: pathlib.Path,
    identity: Float[np.ndarray, "i"],
    *,
    batch_size: int = 8,
    phases: section_timer.Phases | None = None,
  ):
    """Opens the runs `expression`, `triplane`, `inpainting` in a folder.

    Raises:
      InputError: one is missing, or they were trained on different data.
    """
    self._speech = open_run(model / "expression")
    self._picture = open_run(model / "inpainting")
    self.space: FaceSpace = self._picture.space
    if not self.space.is_like(self._speech.space):
      raise InputError(
        f"the runs in {model} were trained with different face models: train "
        "them again on one data set."
      )
    self.identity = np.asarray(identity, np.float32)
    self.resolution = self._picture.experiment.data.resolution
    self.phases = phases or section_timer.Phases()
    self._batch_size = batch_size

  def speak(self, waveform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "t e"]:
    """Raw expressions at FRAME_RATE for speech at SAMPLE_RATE."""
    return self._speech.stage.predict(
      self._speech.state, speech_augmentation.level(waveform), self.identity
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
    given = (image, mask, self._conditions(cameras, expression))
    return self._in_batches("paint", self._picture.stage.paint, given)

  def portray(
    self, cameras: Cameras, expression: Float[np.ndarray, "b e"]
  ) -> Float[np.ndarray, "b h w 3"]:
    """Stage 2's face image alone, in [-1, 1]: no frame is looked at.

    Args:
      cameras: of the windows.
      expression: raw coefficients to show.
    """
    given = (self._conditions(cameras, expression),)
    return self._in_batches("portray", self._picture.stage.portray, given)

  def _conditions(self, cameras, expression) -> inpainting.Conditions:
    identity = np.repeat(self.identity[None], len(expression), 0)
    return inpainting.Conditions(identity, expression, cameras)

  def _in_batches(self, phase, function, given) -> np.ndarray:
    """A function of the picture run's state, batch by batch."""
    count = len(jax.tree.leaves(given)[0])
    results = []
    for start in range(0, count, self._batch_size):
      part = jax.tree.map(lambda x: x[start : start + self._batch_size], given)  # noqa: B023
      num = min(self._batch_size, count - start)
      # One batch size is one compiled program; the filling is thrown away.
      rest = self._batch_size - num
      part = jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], rest, 0)]),  # noqa: B023
        part,
      )
      with self.phases.measure(phase, self._batch_size):
        result = np.asarray(function(self._picture.state, *part))
      results.append(result[:num])
    return np.concatenate(results)


class Person(NamedTuple):
  """Someone the networks were trained on.

  Attributes:
    identity: their coefficients.
    masks: that the network learnt to fill in.
    face_model: name and sha256 of the head model that was fitted.
  """

  identity: Float[np.ndarray, "i"]
  masks: masks.Config
  face_model: dict[str, str]

  def analysis(self) -> dict[str, Any]:
    """How `footage.analyse` is to see them: as they were prepared.

    Raises:
      InputError: their head model is not on this machine.
    """
    head = morphable.recorded(**self.face_model)
    return {"identity": self.identity, "config": self.masks, "model": head}


def person(model: pathlib.Path, sha256: str) -> Person:
  """Who is in a video: the one it was trained on, or the only one.

  Args:
    model: folder with the runs.
    sha256: of the video.

  Raises:
    InputError: nobody it was trained on can be meant.
  """
  people = checkpoint.read_record(model / "inpainting")["people"]
  known = [p for p in people if p["sha256"] == sha256] or people
  if len(known) > 1:
    names = ", ".join(person["source"] for person in known)
    raise InputError(
      f"{model} was trained on {names} and this is none of these videos: "
      "prepare the new one and train with it."
    )
  if "masks" not in known[0]:
    raise InputError(
      f"{model} was trained by an older release, with other masks: prepare the "
      "video and train again."
    )
  identity = np.float32(known[0]["identity"])
  face_model = known[0].get("face_model") or {"sha256": ""}
  return Person(identity, masks.Config(**known[0]["masks"]), face_model)


def repaint(
  actor: Reenactor,
  seen: tracking.Footage,
  wanted: Float[np.ndarray, "count e"],
  kept: Bool[np.ndarray, "e"],
  phases: section_timer.Phases | None = None,
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
  """Yields (frame, the same painted); without a face, the very same.

  Args:
    actor: who paints.
    seen: the video; it plays there and back as long as is wanted.
    wanted: expression of each frame to be made.
    kept: coefficients that are left as the source frame has them.
    phases: told how long each part took, but for the painting, which the
      actor tells.
  """
  phases = phases or section_timer.Phases()
  source = pingpong.read(seen.path, seen.track.times, len(wanted))
  for start in range(0, len(wanted), _CHUNK):
    expression = wanted[start : start + _CHUNK]
    with phases.measure("decode", len(expression)):
      part = [next(source) for _ in expression]
    painted = _painted(actor, seen, part, expression, kept, phases)
    for i, (number, frame) in enumerate(part):
      if i not in painted:
        yield frame, frame
        continue
      with phases.measure("composite"):
        window = seen.track.window[number]
        result = blending.paste(frame, window, *painted[i])
      yield frame, result


def _painted(actor, seen, part, expression, kept, phases) -> dict:
  """Place in the part -> (painted window, mask) of the frames with a face."""
  side = actor.resolution
  index = np.array([number for number, _ in part])
  with_face = np.flatnonzero(seen.track.present[index])
  if not len(with_face):
    return {}
  chosen = index[with_face]
  with phases.measure("masks and crops", len(chosen)):
    cover = seen.face_masks(chosen, side)
    crops = [
      crops_lib.crop_window(part[i][1], seen.track.window[index[i]], side)
      for i in with_face
    ]
  images = actor.paint(
    np.stack(crops).astype(np.float32) / 127.5 - 1,
    cover[..., None].astype(np.float32),
    seen.cameras(chosen),
    np.where(kept, seen.track.expression[chosen], expression[with_face]),
  )
  pairs = zip(images, cover, strict=True)
  return dict(zip(with_face.tolist(), pairs, strict=True))
