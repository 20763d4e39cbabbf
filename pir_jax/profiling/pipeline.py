"""Times a reenacted frame stage by stage, from the source file to the new one.

Synthetic faces and a buzz stand for video and speech, and networks have random
weights: the time hardly depends on any of them. Tracker and head model are the
real ones.

t frames, l landmarks, i identity coefficients, s side of the window, which is
the whole frame here.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.data import synthetic
from pir_jax.data.track import Track
from pir_jax.face import detector, fitting, masks, morphable, windows
from pir_jax.media import (
  blending,
  crops,
  encoders,
  speech_waveform,
  video_reader,
  video_writer,
)
from pir_jax.models import triplane_generator
from pir_jax.profiling import abstract_stage, parts, stopwatch
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import sharding
from pir_jax.stages import base, expression, train_state
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, ExpressionStats, InputError

NUM_FRAMES = 24  # Pictures in memory at once.
NUM_FITTED = 64  # The fit goes over a clip at once: as many as it pads to.
SECONDS = 10  # Of speech.
_SLOW = 2  # Repeats at the most of what takes seconds at once.
_NAMES = 33  # Width of the first column.
_GRAIN = 3.0  # Of the images, in bytes: a smooth one would be coded too fast.


class Stage(NamedTuple):
  """One row of the table.

  Attributes:
    name: as printed.
    seconds: a frame; None where it could not be measured.
    note: what was measured, or why not.
  """

  name: str
  seconds: float | None
  note: str


class Scene(NamedTuple):
  """The source video: a track, its synthetic frames and their masks."""

  track: Track
  images: UInt8[np.ndarray, "t s s 3"]
  masks: np.ndarray


def measure(
  speech: Experiment,
  side: int,
  networks: dict[str, float],
  repeats: int,
) -> Iterator[Stage]:
  """Times the stages in the order in which a frame goes through them.

  Args:
    speech: experiment of the expression stage: speech encoder and decoder.
    side: of the frames and of the window in pixels.
    networks: stages already measured: seconds a frame by name.
    repeats: of which the median is reported.
  """
  scene = film(side)

  def clock(
    work: Callable[[], object], num_frames: int = NUM_FRAMES, most: int = 99
  ) -> float:
    timing, _ = stopwatch.clock(lambda _: work(), None, min(repeats, most))
    return timing.median / num_frames

  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "film.mp4"
    encode(path, scene.images)
    size = f"{side}x{side}"
    seconds = clock(lambda: sum(1 for _ in video_reader.read_frames(path)))
    yield Stage("decode", seconds, f"H.264, {size}")
    yield from _tracking(scene, clock)
    yield from _fitting(scene, side, clock)
    yield _expression(speech, clock)
    for name, seconds in networks.items():
      yield Stage(name, seconds, "from the table above")
    yield _compositing(scene, side, clock)
    seconds = clock(lambda: encode(path, scene.images))
    yield Stage("encode", seconds, f"H.264, {size}, crf {encoders.QUALITY}")


def as_lines(stages: Iterable[Stage]) -> Iterator[str]:
  """Yields headings, each row as soon as it is known, and their sum."""
  yield f"{'reenactment, a frame':{_NAMES}}{'ms':>12}"
  known, missing = [], False
  for stage in stages:
    yield _line(stage)
    missing |= stage.seconds is None
    known.append(stage.seconds or 0.0)
  whole = "all that could be measured" if missing else "all of these"
  speed = f"{1 / sum(known):.3g} frames a second"
  yield _line(Stage(whole, sum(known), speed))


def _line(stage: Stage) -> str:
  cell = "-" if stage.seconds is None else f"{1e3 * stage.seconds:.2f}"
  return f"{stage.name:{_NAMES}}{cell:>12}  {stage.note}"


def film(side: int, num_frames: int = NUM_FRAMES) -> Scene:
  """Renders a synthetic face of NUM_FITTED frames, the first of them."""
  track = synthetic.synthetic_track(NUM_FITTED, size=side)
  frames = [synthetic.render_face(track, i, side) for i in range(num_frames)]
  images = np.stack([frame.image for frame in frames])
  grain = np.random.default_rng(0).normal(0, _GRAIN, images.shape)
  images = np.clip(images + grain, 0, 255).astype(np.uint8)
  return Scene(track, images, np.stack([frame.mask for frame in frames]))


def encode(path: pathlib.Path, images: UInt8[np.ndarray, "t s s 3"]) -> None:
  """Writes a video."""
  size = images.shape[2], images.shape[1]
  with video_writer.VideoWriter(path, size, Fraction(FRAME_RATE)) as sink:
    for image in images:
      sink.write(image)


def _tracking(scene: Scene, clock: Callable) -> Iterator[Stage]:
  name = "track"
  try:
    # No frame counts as empty: a synthetic face costs as much as a real one.
    tracker = detector.Tracker(min_presence=0.0)
  except InputError as error:
    yield Stage(name, None, str(error))
    return
  side = float(scene.images.shape[1])
  region = detector.Region(side / 2, side / 2, 0.7 * side, 0.0)

  def work():
    for image in scene.images:
      tracker.detect(image)
      tracker.refine(image, region)

  yield Stage(name, clock(work), "detector once, mesh twice")


def _fitting(scene: Scene, side: int, clock: Callable) -> Iterator[Stage]:
  names = "fit the head", "window, mask and crop"
  try:
    model = morphable.load()
  except InputError as error:
    yield from (Stage(name, None, str(error)) for name in names)
    return
  identity = np.zeros(len(model.identity_basis), np.float32)
  points = landmarks(scene.track, model, identity, side)
  present, fits = np.ones(NUM_FITTED, bool), []

  def fit_clip():
    # Of a person known from training, as in reenactment.
    size = side, side
    fits.append(fitting.fit(points, present, size, model, identity=identity))

  seconds = clock(fit_clip, NUM_FITTED, _SLOW)
  yield Stage(names[0], seconds, f"a clip of {NUM_FITTED} frames at once")
  images, fit = scene.images, fits[-1]
  seconds_near = masks.Config().spread_seconds

  def work():
    chosen = windows.window(model, fit)[: len(images)]
    frames = np.arange(len(images))
    near = masks.neighbours(
      scene.track.times, present, frames, seconds_near, scene.track.shot
    )
    masks.face_mask(model, fit, chosen, side, frames=frames, near=near)
    for image, window in zip(images, chosen, strict=True):
      crops.crop_window(image, window, side).astype(np.float32) / 127.5 - 1

  yield Stage(names[1], clock(work), f"at {side} px")


def landmarks(
  track: Track,
  model: morphable.FaceModel,
  identity: Float[np.ndarray, "i"],
  side: int,
) -> Float[np.ndarray, "t l 3"]:
  """Returns the landmarks of a speaking head: pixels, z in the same unit."""
  random = np.random.default_rng(0)
  expression = track.expression[:, :1] * morphable.jaw_open(model)
  person = np.repeat(identity[None], len(expression), 0)
  points = np.asarray(morphable.landmarks(model, person, expression))
  pose, k = track.pose, track.intrinsics
  local = (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]
  scale = side * k[:, :1, :1] / local[..., 2:]
  centre = side * k[:, None, :2, 2]
  far = local[..., 2:] - local[..., 2:].mean(1, keepdims=True)
  projected = np.concatenate([local[..., :2] * scale + centre, far * scale], -1)
  return (projected + random.normal(0, 0.3, projected.shape)).astype(np.float32)


def _expression(speech: Experiment, clock: Callable) -> Stage:
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  stage = abstract_stage.make_stage(speech, triplane_generator.Config(), mesh)
  state = random_state(stage)
  sound = speech_waveform.normalize(
    synthetic.speech_like(float(SECONDS), SAMPLE_RATE)
  )
  identity = np.zeros(stage.space.identity_size, np.float32)
  stats = ExpressionStats(
    np.asarray(stage.space.expression_mean),
    np.asarray(stage.space.expression_scale),
  )
  seconds = clock(
    lambda: stage.predict(state, sound, identity, stats),
    SECONDS * FRAME_RATE,
    _SLOW,
  )
  config: expression.Config = speech.stage
  note = f"{config.encoder}, {SECONDS} s of speech, windows of {config.window}"
  return Stage("speech to expression", seconds, note)


def random_state(stage: base.Stage) -> train_state.TrainState:
  """Returns a state of random weights, and gives the frozen ones such, too."""
  # Not `init`: the optimizer's state of a large encoder is not needed.
  shapes = stage.abstract_state()
  nets = {
    name: train_state.NetState(
      *parts.random_arrays((net.params, net.buffers)), None
    )
    for name, net in shapes.nets.items()
  }
  ema = {name: nets[name].params for name in shapes.ema}
  stage.frozen = parts.random_arrays(stage.frozen)
  return train_state.TrainState(jnp.int32(0), nets, ema)


def _compositing(scene: Scene, side: int, clock: Callable) -> Stage:
  window = np.float32([side / 2, side / 2, side])
  generated = np.float32(scene.images[::-1]) / 127.5 - 1

  def work():
    for frame, patch, mask in zip(
      scene.images, generated, scene.masks, strict=True
    ):
      blending.paste(frame, window, patch, mask)

  return Stage("composite", clock(work), f"into {side}x{side}")
