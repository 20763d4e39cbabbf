"""A person: the trained networks, from speech to expressions to faces.

t ticks of FRAME_RATE, n audio samples, b frames, h and w sides of a window, e
expression and i identity coefficients.
"""

import copy
import dataclasses
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.face import masks, morphable, resemblance
from pir_jax.media import blending, fill, speech_waveform, video_reader
from pir_jax.runtime import section_timer
from pir_jax.stages import conditioning
from pir_jax.stages.speaker import Speaker
from pir_jax.stages.speech_stream import SpeechStream
from pir_jax.types import (
  SAMPLE_RATE,
  Cameras,
  ExpressionStats,
  FaceSpace,
  InputError,
)

Path = str | pathlib.Path


class KnownPerson(NamedTuple):
  """Someone the networks were trained on.

  Attributes:
    source: name of the video.
    sha256: of the video.
    identity: their coefficients.
    stats: of their expression; None in records of older runs.
    masks: that the network learnt to fill in.
    face_model: name and sha256 of the head model that was fitted.
    window_side: of the stored windows, in pixels: what the network is shown
      is resampled from these.
    look: of them, see `face.resemblance`; empty in records of older runs.
  """

  source: str
  sha256: str
  identity: Float[np.ndarray, "i"]
  stats: ExpressionStats | None
  masks: masks.Config
  face_model: dict[str, str]
  window_side: int
  look: Float[np.ndarray, "d"]

  @classmethod
  def from_record(cls, record: dict[str, Any]) -> "KnownPerson":
    """Reads one of the people of a run's record.

    Raises:
      InputError: another version of pir_jax wrote it.
    """
    if "resolution" not in record:
      raise InputError(
        f"the networks of {record['source']} are of an older version of "
        "pir_jax: prepare and train again."
      )
    names = ("expression_mean", "expression_std")
    stats = None
    if all(name in record for name in names):
      stats = ExpressionStats(*(np.float32(record[name]) for name in names))
    return cls(
      record["source"],
      record["sha256"],
      np.float32(record["identity"]),
      stats,
      masks.Config(**record["masks"]),
      record.get("face_model") or {"sha256": ""},
      record["resolution"],
      np.float32(record.get("look", [])),
    )

  def resembles(self, look: Float[np.ndarray, "d"]) -> float | None:
    """Returns how alike a face looks; None where either look is not known."""
    if not (len(look) and len(self.look)):
      return None
    return resemblance.resemblance(look, self.look)

  def tracking_options(self) -> dict[str, Any]:
    """Returns the arguments with which a video of them is tracked.

    Raises:
      InputError: their head model is not on this machine.
    """
    head = morphable.recorded(**self.face_model)
    return {"identity": self.identity, "config": self.masks, "model": head}


def person_in(people: list[KnownPerson], sha256: str) -> KnownPerson:
  """Returns who is in a video: the one trained on it, or the only one.

  Args:
    people: that the networks were trained on.
    sha256: of the video.

  Raises:
    InputError: it may show any of several.
  """
  known = [person for person in people if person.sha256 == sha256] or people
  if len(known) > 1:
    names = ", ".join(person.source for person in known)
    raise InputError(
      f"the networks were trained on {names} and this is none of these videos: "
      "prepare the new one and train with it."
    )
  return known[0]


class Networks(NamedTuple):
  """Three trained networks, ready to run.

  Attributes:
    speaker: speech -> expressions.
    inpaint: (image, mask, conditions) -> image: one program for each number of
      frames.
    render: (conditions) -> image of the implicit face.
    space: of the coefficients.
    resolution: side of the windows, in pixels.
    prior: what they began from, see `experiment.prior_of`.
    shifts: ticks by which the sound of videos was late, by their hashes.
  """

  speaker: Speaker
  inpaint: Callable[..., Any]
  render: Callable[..., Any]
  space: FaceSpace
  resolution: int
  prior: str = ""
  shifts: Mapping[str, int] = types.MappingProxyType({})


class Person:
  """The three trained networks, and one person whose face they render.

  `load` opens one from the folder of its runs.

  Attributes:
    networks: to run.
    people: everyone these were trained on.
    identity: coefficients of this one.
    stats: of their expression.
    space: of the coefficients.
    resolution: side of the windows that are inpainted, in pixels.
    prior: what the networks began from, see `experiment.prior_of`.
    phases: where the time of every batch is recorded.
    folder: from which it was opened, if from one.
  """

  prior = ""
  folder: pathlib.Path | None = None

  def __init__(
    self,
    networks: Networks,
    people: list[KnownPerson],
    identity: Float[np.ndarray, "i"],
    stats: ExpressionStats | None = None,
    *,
    batch_size: int = 8,
    phases: section_timer.SectionTimer | None = None,
  ):
    """Takes networks, and who of their people it is."""
    self.networks, self.people = networks, people
    self.identity, self.stats = np.asarray(identity, np.float32), stats
    self.space, self.resolution = networks.space, networks.resolution
    self.prior = networks.prior
    self.phases = phases or section_timer.SectionTimer()
    self._batch_size = batch_size

  @property
  def expression_names(self) -> tuple[str, ...]:
    """Names of the expression coefficients, in order."""
    return self.space.expression_names

  def with_identity(
    self,
    identity: Float[np.ndarray, "i"],
    stats: ExpressionStats | None = None,
    phases: section_timer.SectionTimer | None = None,
  ) -> "Person":
    """Returns the same networks with another person, and its own phases."""
    other = copy.copy(self)
    other.identity, other.stats = np.asarray(identity, np.float32), stats
    other.phases = phases or section_timer.SectionTimer()
    return other

  def in_batches_of(self, size: int) -> "Person":
    """Returns the same person, whose frames are rendered so many at once."""
    other = copy.copy(self)
    other._batch_size = size
    return other

  def begin_speech(self, look_ahead: int, step: int) -> SpeechStream:
    """Begins to predict raw expressions of speech that is still coming.

    Args:
      look_ahead: ticks of sound after a tick that it waits for.
      step: ticks predicted at once.
    """
    return self.networks.speaker.stream(
      self.identity, self.stats, look_ahead=look_ahead, step=step
    )

  def in_step(self, clip: Any) -> Any:
    """Returns a `Clip` whose sound is in step, as far as the networks know."""
    shift = self.networks.shifts.get(clip.manifest.sha256, 0)
    return dataclasses.replace(clip, shift=shift)

  def predict_expression(
    self, audio: Path | Float[np.ndarray, "n"]
  ) -> Float[np.ndarray, "t e"]:
    """Predicts the expressions that go with speech.

    Args:
      audio: a sound or video file, or mono samples at SAMPLE_RATE (16 kHz).

    Returns:
      Raw coefficients (0 is rest; those of the open head's 52 units are about
      0 to 1), one row every 1 / FRAME_RATE = 40 ms.

    Raises:
      InputError: the file cannot be read, or holds no sound.
    """
    if isinstance(audio, str | pathlib.Path):
      audio = read_speech(audio)
    return self.networks.speaker.predict(
      speech_waveform.normalize(audio), self.identity, self.stats
    )

  def render(
    self, expression: Float[np.ndarray, "t e"], cameras: Cameras
  ) -> UInt8[np.ndarray, "t h w 3"]:
    """Renders the implicit face alone, without a frame behind it.

    Args:
      expression: raw coefficients.
      cameras: one a frame, as `Clip.cameras`. If they are fewer than the
        expressions they are taken forward, backward and so on; the rest of
        more of them is not used.

    Returns:
      RGB from 0 to 255, one image for each expression.

    Raises:
      InputError: the expressions have another number of coefficients, or
        there is no camera.
    """
    size = self.space.expression_size
    if expression.shape[-1] != size or not len(cameras.pose):
      raise InputError(
        f"{expression.shape[-1]} coefficients and {len(cameras.pose)} cameras "
        f"make no face: give the {size} that expression_names lists, and at "
        "least one camera."
      )
    index = fill.frame_indices(len(cameras.pose), len(expression))
    cameras = Cameras(*(np.float32(x)[index] for x in cameras))
    return self._render(cameras, expression, blending.to_bytes)

  def render_images(
    self, expression: Float[np.ndarray, "b e"], cameras: Cameras
  ) -> Float[np.ndarray, "b h w 3"]:
    """Renders the implicit face alone, in [-1, 1], a camera an expression."""
    return self._render(cameras, expression)

  def inpaint(
    self,
    image: Float[np.ndarray, "b h w 3"],
    mask: Float[np.ndarray, "b h w 1"],
    cameras: Cameras,
    expression: Float[np.ndarray, "b e"],
  ) -> Float[np.ndarray, "b h w 3"]:
    """Inpaints the face in windows; returns the windows, in [-1, 1].

    Args:
      image: the windows; what lies under the mask is not used.
      mask: 1 where the network inpaints.
      cameras: of the windows.
      expression: raw coefficients of the face.
    """
    inputs = (image, mask, self._conditions(cameras, expression))
    return self._in_batches("inpaint", self.networks.inpaint, inputs)

  def _render(self, cameras, expression, finish=None) -> np.ndarray:
    inputs = (self._conditions(cameras, expression),)
    return self._in_batches("render", self.networks.render, inputs, finish)

  def _conditions(self, cameras, expression) -> conditioning.Conditions:
    identity = np.repeat(self.identity[None], len(expression), 0)
    return conditioning.Conditions(identity, np.float32(expression), cameras)

  def _in_batches(
    self,
    phase: str,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    finish: Callable[[np.ndarray], np.ndarray] | None = None,
  ) -> np.ndarray:
    """Returns what a function makes of the inputs, batch by batch."""
    count = len(jax.tree.leaves(inputs)[0])
    results = []
    for start in range(0, count, self._batch_size):
      # One batch size is one compiled program: the last batch is filled up
      # with copies of its last item.
      at = np.minimum(start + np.arange(self._batch_size), count - 1)
      part = jax.tree.map(lambda x: x[at], inputs)  # noqa: B023
      with self.phases.measure(phase, self._batch_size):
        result = np.asarray(function(*part))
      result = result[: count - start]
      results.append(finish(result) if finish else result)
    return np.concatenate(results)


def read_speech(
  path: Path, most: float | None = None
) -> Float[np.ndarray, "n"]:
  """Reads the sound of a file, mono at SAMPLE_RATE; silence becomes zeros.

  Args:
    path: of the file.
    most: seconds that are read, if it holds so many.

  Raises:
    InputError: the file cannot be read, or holds no sound.
  """
  if most is None:
    waveform = video_reader.read_audio(path)
  else:
    blocks = video_reader.stream_audio(path, round(most * SAMPLE_RATE))
    waveform = next(blocks)
    blocks.close()
  audible = speech_waveform.check(waveform, silence=True)
  for remark in video_reader.sound_remarks(path, waveform):
    print(f"{pathlib.Path(path).name} {remark}.")
  if not audible:
    print("The sound is silent: the mouth will stay closed.")
    waveform[:] = 0  # Or hiss would be raised to the level of speech.
  return waveform
