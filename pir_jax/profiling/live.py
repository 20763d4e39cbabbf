"""Times whole reenactments: from file to file, and of speech that comes now.

A trained person and their video, or networks of random weights and a synthetic
face: the time hardly depends on either.

n audio samples.
"""

import contextlib
import gc
import io
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import soundfile
from jaxtyping import Float

from pir_jax.data import synthetic
from pir_jax.face import fitting, masks, morphable, windows
from pir_jax.inference import live, loading, reenactor
from pir_jax.inference import source as source_lib
from pir_jax.inference.person import KnownPerson, Person
from pir_jax.media import video_reader
from pir_jax.preparation import tracking
from pir_jax.profiling import abstract_stage, pipeline
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import Run
from pir_jax.runtime import memory, section_timer, sharding
from pir_jax.types import SAMPLE_RATE, ExpressionStats

CHUNK = SAMPLE_RATE // 50  # Samples that come at once: 20 ms.
_PERCENTILES = (50, 95, 99, 100)


class Delays(NamedTuple):
  """What became of speech that came in real time.

  Attributes:
    seconds: from the moment at which a frame's own sound was there until the
      frame was, one a frame.
    resident: bytes of memory, at a tenth of the time and at the end.
  """

  seconds: Float[np.ndarray, "t"]
  resident: tuple[int, int]


def lines(
  person: tuple[str, str] | list[str] | None,
  experiments: Sequence[Experiment],
  seconds: float,
  repeats: int,
) -> Iterator[str]:
  """Yields lines of what `measure` measures.

  Args:
    person: folder of their runs, and their video; None takes random weights.
    experiments: of the expression, tri-plane and inpainting stages, then.
    seconds: of whole speech; six times as many come in real time.
    repeats: of whole speech.
  """
  with tempfile.TemporaryDirectory() as folder:
    if person:
      source = source_lib.open_source(*person)
    else:
      source = random_source(*experiments, pathlib.Path(folder))
    video = source.tracked.video
    yield (
      f"{jax.devices()[0].device_kind}; {video.width}x{video.height} pixels at "
      f"{float(video.rate):g} a second, windows of {source.person.resolution}"
    )
    yield from measure(source, seconds, 6 * seconds, repeats)


def measure(
  source: source_lib.Source, seconds: float, live_seconds: float, repeats: int
) -> Iterator[str]:
  """Yields lines: whole speech, its parts, then speech that comes now.

  Args:
    source: the person and their video, known: nothing is tracked.
    seconds: of whole speech.
    live_seconds: of speech that comes in real time.
    repeats: of whole speech, after one that is not counted; the median counts.
  """
  sound = np.float32(synthetic.speech_like(max(seconds, 1.0), SAMPLE_RATE))
  sound = sound[: round(seconds * SAMPLE_RATE)]
  _whole(source, sound)
  runs = [_whole(source, sound) for _ in range(repeats)]
  spent, first, count, phases = sorted(runs, key=lambda run: run[0])[
    len(runs) // 2
  ]
  yield (
    f"{seconds:g} s of speech to a file: {count / spent:.1f} frames a second, "
    f"first frame after {first:.2f} s ({repeats} runs, the median)"
  )
  yield from phases.table().splitlines()
  delays = follow(source, live_seconds)
  shown = np.percentile(delays.seconds, _PERCENTILES)
  names = ("median", "95 %", "99 %", "most")
  cells = ", ".join(
    f"{name} {1000 * x:.0f}" for name, x in zip(names, shown, strict=True)
  )
  yield (
    f"{live_seconds:g} s of speech in real time, look-ahead 0.2 s: a frame "
    f"comes after its sound by ms: {cells}"
  )
  start, end = map(memory.readable, delays.resident)
  yield f"memory {start} at a tenth of that time, {end} at its end"


def _whole(source, sound: Float[np.ndarray, "n"]):
  """Reenacts once: seconds, of them to the first frame, frames, phases."""
  phases = section_timer.SectionTimer()
  person = source.person.with_identity(
    source.person.identity, source.person.stats, phases
  )
  source = source._replace(person=person)
  with tempfile.TemporaryDirectory() as folder:
    speech = pathlib.Path(folder) / "speech.wav"
    soundfile.write(speech, sound, SAMPLE_RATE)
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
      done = reenactor.write(
        source, sound, speech, pathlib.Path(folder) / "out.mp4"
      )
    spent = time.perf_counter() - begin
  return spent, done.first - begin, done.num_frames, phases


def follow(source: source_lib.Source, seconds: float) -> Delays:
  """Feeds speech in real time and notes when each frame is there."""
  sound = np.float32(synthetic.speech_like(10.0, SAMPLE_RATE))
  # Compiles what live speech needs.
  for _ in live.moments(source, [sound[: 2 * SAMPLE_RATE]]):
    pass
  gc.freeze()  # As `live_output` does.
  came: list[float] = []

  def chunks():
    begin = time.perf_counter()
    for i in range(round(seconds * SAMPLE_RATE / CHUNK)):
      due = begin + (i + 1) * CHUNK / SAMPLE_RATE
      time.sleep(max(0.0, due - time.perf_counter()))
      came.append(time.perf_counter())
      place = i * CHUNK % (len(sound) - CHUNK)
      yield sound[place : place + CHUNK]

  waits, resident = [], []
  marks = [seconds / 10, seconds - 1]
  for moment in live.moments(source, chunks()):
    # The chunk in which the frame's sound begins.
    place = int(moment.time * SAMPLE_RATE / CHUNK)
    waits.append(time.perf_counter() - came[min(place, len(came) - 1)])
    if marks and moment.time >= marks[0]:
      resident.append(_resident())
      del marks[0]
  resident = resident or [_resident()]
  return Delays(np.array(waits), (resident[0], resident[-1]))


def _resident() -> int:
  """Returns the bytes of memory in use, the most so far where not known."""
  try:
    text = pathlib.Path("/proc/self/status").read_text()
    (line,) = (x for x in text.splitlines() if x.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])
  except (OSError, ValueError):
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def random_source(
  speech: Experiment,
  renderer: Experiment,
  inpainting: Experiment,
  folder: pathlib.Path,
  side: int = 512,
) -> source_lib.Source:
  """Makes a person of random weights and a synthetic video of them.

  Args:
    speech: experiment of the expression stage.
    renderer: of the tri-plane.
    inpainting: of the inpainting stage.
    folder: for the video.
    side: of its frames in pixels.
  """
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  runs = []
  for experiment in (speech, inpainting):
    stage = abstract_stage.make_stage(experiment, renderer.stage.model, mesh)
    state = pipeline.random_state(stage)
    runs.append(Run(experiment, stage, state, stage.space, 0, []))
  tracked = _film(folder / "film.mp4", side)
  space = runs[0].space
  stats = ExpressionStats(
    np.asarray(space.expression_mean), np.asarray(space.expression_scale)
  )
  known = KnownPerson(
    "film.mp4",
    tracked.video.sha256,
    tracked.track.identity,
    stats,
    masks.Config(),
    {"sha256": ""},
    side,
    np.zeros(0, np.float32),
  )
  networks = loading.networks_of(*runs)
  person = Person(networks, [known], known.identity, stats, batch_size=4)
  return source_lib.Source(person, known, tracked)


def _film(path: pathlib.Path, side: int) -> tracking.TrackedVideo:
  """Writes a synthetic face's video, and fits the head to its landmarks."""
  scene = pipeline.film(side, pipeline.NUM_FITTED)
  pipeline.encode(path, scene.images)
  model = morphable.load()
  identity = np.zeros(len(model.identity_basis), np.float32)
  points = pipeline.landmarks(scene.track, model, identity, side)
  present = np.ones(len(points), bool)
  fit = fitting.fit(points, present, (side, side), model, identity=identity)
  config = masks.Config()
  window = windows.window(model, fit, config=config)
  cameras = windows.cameras_of(fit, window)
  track = scene.track._replace(
    present=present,
    interpolated=~present,
    pose=np.asarray(cameras.pose, np.float32),
    intrinsics=np.asarray(cameras.intrinsics, np.float32),
    expression=np.asarray(fit.expression, np.float32),
    identity=identity,
    window=window,
    mask_window=windows.mask_window(model, fit, window, config=config),
    landmarks=np.float32(points[..., :2] / side),
  )
  video = video_reader.probe(path)
  return tracking.TrackedVideo(path, video, model, fit, track, 1, config)
