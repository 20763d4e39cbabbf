"""The expression stage measured alone: how well lips follow speech.

The parametric head is posed with what the stage predicts for a clip's held-out
tail and compared with the head posed as fitted. No picture is generated.
k ticks of FRAME_RATE of a passage, n audio samples, i identity and e expression
coefficients, v lip vertices, l landmarks.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pir_jax.data import speech_augmentation, timing
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.face import morphable
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.media import plots, speech_waveform, video_reader
from pir_jax.metrics import landmarks, lips
from pir_jax.runs import speech_shift
from pir_jax.runs.experiment import prior_of
from pir_jax.runs.run import Run, open_run, place_of
from pir_jax.stages import expression
from pir_jax.types import FRAME_RATE, Cameras, ExpressionStats, InputError

SIZE = 512  # Side of the window in which mouth distances are counted.
NUM_SHUFFLES = 20
PAUSE = FRAME_RATE  # Ticks of the pauses that are put in: 1 s.
SETTLING = 5  # Ticks at each end of one in which lips may still move: 0.2 s.
MM = 100 / morphable.HEAD_UNITS_PER_DECIMETRE  # millimetres a head unit.
TARGET = "fitted to the frames"
MEAN = "the person's mean"
SHUFFLED = "ours, shuffled audio"
LUCKIEST = "the luckiest of these"
OURS = "ours"


class Passage(NamedTuple):
  """A run of speech of a prepared clip.

  Attributes:
    source: name of the video.
    waveform: levelled.
    fitted: expressions of the fit.
    held_out: ticks that are measured: of the tail, with a face.
    identity: of the person.
    stats: of the person's expression over the clip's training part.
    cameras: of the window, a tick.
  """

  source: str
  waveform: Float[np.ndarray, "n"]
  fitted: Float[np.ndarray, "k e"]
  held_out: Bool[np.ndarray, "k"]
  identity: Float[np.ndarray, "i"]
  stats: ExpressionStats
  cameras: Cameras


class Measured(NamedTuple):
  """One row for one passage; NaN where a figure has no meaning.

  Attributes:
    vertex: lip vertex error, millimetres.
    mouth: distance of the posed head's lip landmarks, pixels of a window of
      SIZE, each frame's set centred.
    correlation: of the lips' opening with the fitted one.
    spread: std of the opening, as a share of the fitted one's.
    rest: share of the passage's own openings in speech that lie below the
      opening in a pause put into it; 0 is closed.
    below: share of shuffled audio whose correlation is below this one's.
  """

  vertex: float = np.nan
  mouth: float = np.nan
  correlation: float = np.nan
  spread: float = np.nan
  rest: float = np.nan
  below: float = np.nan


def passages(clip: Clip) -> list[Passage]:
  """Reads the runs of speech that extend into a clip's held-out tail.

  Raises:
    InputError: there is none.
  """
  track, manifest = clip.track, clip.manifest
  ticks = timing.tick_times(track.times)
  nearest = np.abs(track.times[None] - ticks[:, None]).argmin(1)
  result = []
  for run in clip.speech():
    place = run.start + np.arange(len(run.valid))
    held_out = run.valid & (place >= clip.held_out_tick)
    frames = nearest[place]
    if np.count_nonzero(held_out) > 1:
      result.append(
        Passage(
          manifest.source,
          speech_waveform.normalize(run.waveform),
          run.expression,
          held_out,
          run.identity,
          clip.expression_stats,
          Cameras(track.pose[frames], track.intrinsics[frames]),
        )
      )
  if not result:
    raise InputError(
      f"{clip.path} has no speech with a face in its held-out part: prepare a "
      "clip with sound, or a longer one."
    )
  return result


class Head:
  """The parametric head of one person, its lips."""

  def __init__(self, model: morphable.FaceModel, identity: np.ndarray):
    self._model = model
    self._identity = identity
    near = np.unique(model.landmark_triangles[morphable.LIPS])
    self._basis = np.asarray(model.expression_basis)[:, near]
    self._neutral = np.asarray(model.mean)[near] + np.tensordot(
      identity, np.asarray(model.identity_basis)[:, near], axes=1
    )

  def lip_vertices(
    self, expression: Float[np.ndarray, "k e"]
  ) -> Float[np.ndarray, "k v 3"]:
    """Returns the vertices of the lip landmarks' triangles, millimetres."""
    return MM * (self._neutral + np.tensordot(expression, self._basis, axes=1))

  def points(
    self, expression: Float[np.ndarray, "k e"]
  ) -> Float[np.ndarray, "k l 3"]:
    """Returns all landmarks, head units."""
    identity = np.broadcast_to(
      self._identity, (len(expression), len(self._identity))
    )
    return np.asarray(
      morphable.landmarks(self._model, identity, np.float32(expression))
    )

  def opening(
    self, expression: Float[np.ndarray, "k e"]
  ) -> Float[np.ndarray, "k"]:
    """Returns the gap between the inner lips, millimetres."""
    return MM * lips.opening(self.points(expression))

  def mouth(
    self, expression: Float[np.ndarray, "k e"], cameras: Cameras
  ) -> Float[np.ndarray, "k p 2"]:
    """Returns lip landmarks in pixels of a window of SIZE."""
    points = self.points(expression)[:, morphable.LIPS]
    return SIZE * np.asarray(cameras_lib.project(points, cameras)[0])


def measure(
  passage: Passage, run: Run, model: morphable.FaceModel
) -> tuple[dict[str, Measured], dict[str, Float[np.ndarray, "k"]]]:
  """Measures every row of a passage, and the lips' opening at each tick (mm).

  Shuffled audio is the passage's own speech begun elsewhere: NUM_SHUFFLES even
  shifts, at least a second each where that can be.
  """
  head = Head(model, passage.identity)
  true = head.opening(passage.fitted)
  kept = passage.held_out

  predict = predictor(passage, run)

  def row(expression, **more):
    opening = head.opening(expression)
    vertices = (
      head.lip_vertices(x[kept]) for x in (expression, passage.fitted)
    )
    cameras = Cameras(*(x[kept] for x in passage.cameras))
    mouths = (
      head.mouth(x[kept], cameras) for x in (expression, passage.fitted)
    )
    return Measured(
      vertex=lips.lip_vertex_error(*vertices),
      mouth=landmarks.mouth_distance(*mouths),
      correlation=lips.correlation(opening[kept], true[kept]),
      spread=_spread(opening[kept], true[kept]),
      **more,
    ), opening

  ours = predict(passage.waveform)[: len(kept)]
  mean = np.broadcast_to(passage.stats.mean, passage.fitted.shape)
  shifts = _shifts(len(kept))
  others = [
    row(
      predict(np.roll(passage.waveform, s * speech_augmentation.HOP))[
        : len(kept)
      ]
    )
    for s in shifts
  ]
  shuffled = Measured(*np.mean([r for r, _ in others], axis=0))
  measured, opening = row(ours)
  below = np.mean([r.correlation < measured.correlation for r, _ in others])
  rest = silence_rank(passage, opening, predict, head)
  rows = {
    MEAN: row(mean)[0],
    SHUFFLED: shuffled,
    LUCKIEST: Measured(correlation=max(r.correlation for r, _ in others)),
    OURS: measured._replace(rest=rest, below=float(below)),
  }
  return rows, {TARGET: true, SHUFFLED: others[0][1], OURS: opening}


def predictor(passage: Passage, run: Run):
  """Returns what predicts a passage's person: speech -> raw expressions."""
  who = passage.identity, passage.stats
  return lambda waveform: run.stage.predict(run.state, waveform, *who)


def measure_voice(
  waveform: Float[np.ndarray, "n"],
  passage: Passage,
  run: Run,
  model: morphable.FaceModel,
) -> tuple[Measured, Float[np.ndarray, "k"]]:
  """Measures another voice driving a passage's person (opening in mm).

  Args:
    waveform: levelled.
    passage: whose person and whose fitted spread are taken.
    run: of the expression stage.
    model: the head.
  """
  head, predict = Head(model, passage.identity), predictor(passage, run)
  opening = head.opening(predict(waveform))
  everywhere = np.arange(len(opening))
  true = head.opening(passage.fitted)
  return Measured(
    spread=_spread(opening, true[passage.held_out]),
    rest=_rest(waveform, opening, everywhere, predict, head),
  ), opening


def shuffles(num_ticks: int) -> np.ndarray:
  """Returns the samples by which speech is moved for `shuffled audio`."""
  return _shifts(num_ticks) * speech_augmentation.HOP


def _shifts(num_ticks: int) -> np.ndarray:
  """Returns the ticks by which speech is moved for `shuffled audio`."""
  first = max(1, min(FRAME_RATE, num_ticks // 3))
  places = np.linspace(first, num_ticks - first, NUM_SHUFFLES)
  return np.unique(places.round().astype(int))


def _spread(opening, target) -> float:
  return float(np.std(opening) / max(np.std(target), 1e-6))


def silence_rank(passage: Passage, opening, predict, head) -> float:
  """Ranks the opening in silence put into a passage's held-out ticks.

  Args:
    passage: of speech.
    opening: as predicted for it, a tick.
    predict: speech -> raw expressions.
    head: of the person.
  """
  ticks = np.flatnonzero(passage.held_out)
  return _rest(passage.waveform, opening, ticks, predict, head)


def _rest(waveform, opening, ticks, predict, head) -> float:
  """Ranks the opening in pauses put in at three places among `ticks`."""
  ranks = []
  for start in np.linspace(ticks[0], ticks[-1], 3).round().astype(int):
    cut = start * speech_augmentation.HOP
    pause = np.zeros(PAUSE * speech_augmentation.HOP, np.float32)
    paused = np.concatenate([waveform[:cut], pause, waveform[cut:]])
    expression = predict(paused)
    silent = expression[start + SETTLING : start + PAUSE - SETTLING]
    ranks.append(lips.silence_rank(head.opening(silent), opening))
  return float(np.mean(ranks))


def pooled(rows: Iterable[dict[str, Measured]]) -> dict[str, Measured]:
  """Averages over passages, row by row."""
  rows = list(rows)
  return {
    name: Measured(*np.mean([r[name] for r in rows], axis=0))
    for name in rows[0]
  }


def as_text(table: dict[str, Measured], title: str) -> str:
  """Formats the table for a person."""
  heads = ("LVE mm", "LMD px", "corr", "spread", "in pauses", "beats")
  lines = [title, f"{'':28}" + "".join(f"{name:>10}" for name in heads)]
  for name, values in table.items():
    cells = ("-" if np.isnan(v) else f"{v:.2f}" for v in values)
    lines.append(f"{name:28}" + "".join(f"{cell:>10}" for cell in cells))
  return "\n".join(lines)


def to_plain(row: Measured) -> dict[str, float | None]:
  """Returns plain values; None for NaN, which JSON does not know."""
  return {
    name: None if np.isnan(value) else float(value)
    for name, value in row._asdict().items()
  }


def from_plain(values: dict[str, float | None]) -> Measured:
  """Returns the inverse of `to_plain`."""
  return Measured(
    **{name: np.nan if v is None else v for name, v in values.items()}
  )


LEGEND = (
  "LVE: worst lip vertex of a frame, averaged. LMD: 40 lip landmarks of the "
  f"posed head, centred, in a window of {SIZE} px. corr: lip opening against "
  "the fitted one, held-out ticks. spread: its std, as a share of the fitted "
  "one's there. in pauses: rank of the opening in inserted silence of "
  f"{PAUSE / FRAME_RATE:g} s among all frames of the passage (0: more closed "
  "than any). beats: share of the shuffles whose corr is lower. Shuffled: the "
  f"mean of up to {NUM_SHUFFLES} shifts of the passage's own sound; the "
  "luckiest shows how much chance there is in few frames."
)


def read_voice(path: str | pathlib.Path) -> Float[np.ndarray, "n"]:
  """Reads a sound file as the stage wants it.

  Raises:
    InputError: it cannot be used as speech.
  """
  waveform = video_reader.read_audio(path)
  speech_waveform.check(waveform)
  return speech_waveform.normalize(waveform)


def report(
  model: str | pathlib.Path,
  data: Dataset,
  output: str | pathlib.Path,
  audio: str | pathlib.Path = "",
) -> str:
  """Writes the report on the expression stage alone; returns its tables.

  Args:
    model: folder with the run `expression`, or that run itself.
    data: prepared clips, of people in the training data or not.
    output: folder for the report.
    audio: another voice, or "".

  Raises:
    InputError: the model, the data or the voice cannot be used.
  """
  model, output = pathlib.Path(model), pathlib.Path(output)
  voice = read_voice(audio) if audio else None
  inside = place_of(model, "expression")
  run = open_run(inside if inside.exists() else model)
  data = speech_shift.recorded(data, run.people)
  measured = [passage for clip in data for passage in passages(clip)]
  if not isinstance(run.experiment.stage, expression.Config):
    raise InputError(f"{model} is a run of another stage than expression.")
  head = morphable.recorded(run.space.face_model)
  known = {tuple(p["identity"]) for p in run.people}
  tables, panels = {}, {}
  for number, passage in enumerate(measured, 1):
    title = f"{number}. {passage.source}{prior_of(run.experiment.stage)}"
    if tuple(passage.identity.astype(float).tolist()) not in known:
      title += ", a clip not in the training data"
    rows, openings = measure(passage, run, head)
    if voice is not None:
      name = f"ours, {pathlib.Path(audio).name}"
      rows[name], opening = measure_voice(voice, passage, run, head)
      openings[name] = opening[: 2 * len(passage.held_out)]
    tables[title] = rows
    edge = passage.held_out.argmax() / FRAME_RATE
    panels[f"{title}: lip opening, held out from {edge:.2f} s on"] = openings
  if len(measured) > 1:
    tables[f"all {len(measured)} passages"] = pooled(tables.values())
  text = "\n\n".join(as_text(rows, title) for title, rows in tables.items())
  text += "\n\n" + LEGEND
  output.mkdir(parents=True, exist_ok=True)
  (output / "speech.txt").write_text(text + "\n")
  plain = {
    title: {name: to_plain(row) for name, row in rows.items()}
    for title, rows in tables.items()
  }
  (output / "speech.json").write_text(json.dumps(plain, indent=2) + "\n")
  picture = plots.curves(panels, frame_rate=float(FRAME_RATE), unit="mm")
  picture.save(output / "speech.png")
  return text
