"""Renders the parts of the page. The templates escape every value."""

import base64
import functools
import time
from typing import NamedTuple

import jinja2

from pir_jax.interface import actions, event_images, job_log, jobs, people

_WIDTH, _HEIGHT = 320, 130  # Of a chart.
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 8, 18


class Chart(NamedTuple):
  """A loss curve, in the units of an SVG picture.

  Attributes:
    title: of it.
    path: of the curve.
    levels: (label, y) of the horizontal lines.
    ticks: (label, x) of the steps.
    width, height, left, right: of the picture and of the curve in it.
  """

  title: str
  path: str
  levels: list[tuple[str, float]]
  ticks: list[tuple[str, float]]
  width: int = _WIDTH
  height: int = _HEIGHT
  left: int = _LEFT
  right: int = _WIDTH - _RIGHT


class Parts(NamedTuple):
  """The parts of the page, as HTML."""

  status: str
  verdict: str
  training: str
  videos: str
  comparison: str
  log: str


def chart(title: str, points: list[tuple[int, float]]) -> Chart:
  """Lays out a curve of (step, loss), at least one point."""
  steps, losses = zip(*points, strict=True)
  low, high = min(losses), max(losses)
  spread = max(high - low, 1e-3 * max(abs(high), 1e-6))
  first, last = 0, max(steps[-1], 1)

  def place(step, loss):
    x = _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
    y = _TOP + (high - loss) / spread * (_HEIGHT - _TOP - _BOTTOM)
    return f"{x:.1f} {y:.1f}"

  path = "M" + "L".join(place(*point) for point in points)
  if len(points) == 1:
    path += "h1"
  return Chart(
    title,
    path,
    [
      (f"{high:.3g}", _TOP),
      *([(f"{low:.3g}", _HEIGHT - _BOTTOM)] if high > low else []),
    ],
    [("0", _LEFT), (str(last), _WIDTH - _RIGHT)],
  )


def render(desk: actions.Actions, person: people.Person | None) -> Parts:
  """Renders all parts for a person, or for nobody."""
  active = [job for job in desk.queue.jobs() if job.state in jobs.ACTIVE]
  shown = functools.partial(_shown, desk)
  newest = {
    kind: person and shown(desk.newest(person, kind))
    for kind in (actions.PREPARE, actions.TRAIN, actions.SPEAK, actions.COMPARE)
  }
  own = [job for job in newest.values() if job]
  last = max(own, key=lambda job: job["name"], default=None)
  # The status shows this one, the others show in their own place.
  newest = {
    kind: job if active or job is not last else None
    for kind, job in newest.items()
  }
  macros = _template().module
  return Parts(
    status=macros.status(person, [shown(job) for job in active], last),
    verdict=macros.verdict(
      person, person and person.prepared(), newest[actions.PREPARE]
    ),
    training=macros.training(*_training(desk, person), newest[actions.TRAIN]),
    videos=macros.videos(person, _videos(person), newest[actions.SPEAK]),
    comparison=macros.comparison(
      person, *_comparison(person), newest[actions.COMPARE]
    ),
    log=macros.log(last and last["log"]),
  )


def _shown(desk: actions.Actions, job: jobs.Job | None) -> dict | None:
  """Returns what the templates show of a job."""
  if job is None:
    return None
  lines = job_log.read(desk.queue.log(job))
  progress = job_log.progress(lines)
  where = f"{desk.people.folder / job.person}/"
  return {
    "name": job.name,
    "person": job.person,
    "kind": job.kind,
    "title": job.title,
    "state": job.state,
    "step": job.step + 1,
    "num_steps": len(job.commands),
    "sentence": job.sentence.replace(where, ""),
    "progress": progress._replace(
      sentence=progress.sentence.replace(where, "")
    ),
    "left": _duration(progress.seconds_left),
    "took": _duration(job.ended - job.started) if job.started else "",
    "log": job_log.tail(lines).replace(where, ""),
  }


def _training(desk, person):
  if person is None:
    return person, [], []
  trained = [j for j in desk.queue.jobs(person.id) if j.kind == actions.TRAIN]
  if not trained:
    return person, [], []
  variant = trained[-1].note
  lines = [
    line
    for job in trained
    if job.note == variant
    for line in job_log.read(desk.queue.log(job))
  ]
  curves = job_log.curves(lines)
  charts = [
    chart(stage, curves[stage]) for stage in people.STAGES if stage in curves
  ]
  previews = []
  for stage in people.STAGES:
    folder = person.runs(variant) / stage / "tensorboard"
    for image in event_images.newest(folder):
      data = base64.b64encode(image.png).decode("ascii")
      previews.append((stage, image.step, f"data:image/png;base64,{data}"))
  return person, charts, previews


def _videos(person):
  return [video for video in person.videos() if video.is_made] if person else []


def _comparison(person):
  variant = person and person.variant()
  if not variant:
    return None, ""
  path = person.runs(variant) / "report" / "table.txt"
  table = path.read_text() if path.is_file() else ""
  return variant, table


def _duration(seconds: float | None) -> str:
  """Returns seconds in words; "" where they are not known."""
  if seconds is None:
    return ""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min"


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("pir_jax.interface"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["moment"] = lambda seconds: time.strftime(
    "%d %b %H:%M", time.localtime(seconds)
  )
  return environment.get_template("page.html")
