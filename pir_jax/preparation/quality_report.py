"""Writes report.html and manifest.json of a data set, from its clips alone.

One page that explains itself: no scripts, no other files, no dates, so that
the same clips give the same bytes. The template escapes every value.
"""

import base64
import functools
import json
import math
import pathlib
import urllib.parse
import uuid
from typing import Any, NamedTuple

import jinja2

from pir_jax.data import manifest
from pir_jax.preparation import quality_figures, quality_rules

FILE_NAME = "report.html"
THUMBNAILS = "thumbnails.jpg"
FAILED = "failed.json"
VERSION = 1
# Pictures of the worst so many clips are in the page; it shows the others'
# from the clips' folders, or a data set of thousands could not be opened.
NUM_PICTURES = 100
NUM_OPEN = 12  # Cards that are open at first.

_WIDTH, _HEIGHT = 480, 140  # Of a chart.
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 6, 8, 20
_INK = ("#2b5f8a", "#c46a1b")
# Title, the range that the scale covers at least, so that calm curves look
# calm, and name -> (curve, factor) of each line.
_CHARTS = (
  (
    "Fit error, % of face height: should be low and even",
    (0.0, 3.0),
    {"fit error": ("fit_error", 100)},
  ),
  (
    "Lips' opening, % of face height",
    (0.0, 5.0),
    {"opening": ("opening", 100)},
  ),
  (
    "Loudness of the sound, dB of full scale",
    (-60.0, 0.0),
    {"loudness": ("loudness", 1)},
  ),
  (
    "Head turns, degrees",
    (-20.0, 20.0),
    {"sideways": ("yaw", 1), "up, down": ("pitch", 1)},
  ),
)


class Line(NamedTuple):
  """One curve of a chart, as an SVG path."""

  name: str
  ink: str
  path: str


class Chart(NamedTuple):
  """Curves over time, in the units of an SVG picture.

  Attributes:
    title: of it.
    lines: on one scale.
    levels: (label, y) of the horizontal lines.
    ticks: (label, x) of the times.
    width, height, left, right: of the picture and of the curves in it.
  """

  title: str
  lines: list[Line]
  levels: list[tuple[str, float]]
  ticks: list[tuple[str, float]]
  width: int = _WIDTH
  height: int = _HEIGHT
  left: int = _LEFT
  right: int = _WIDTH - _RIGHT


class Clip(NamedTuple):
  """A prepared clip as the page shows it.

  Attributes:
    name: of its folder; "" where the page lies in that folder.
    values: its manifest.
    strip: its pictures, where there are any.
  """

  name: str
  values: dict[str, Any]
  strip: pathlib.Path | None

  @property
  def quality(self) -> dict[str, Any]:
    """Its `quality.Quality`; empty where it was not measured."""
    return self.values.get("quality") or {}

  @property
  def level(self) -> str:
    """One of quality_rules.LEVELS, or ""."""
    level = self.quality.get("level")
    return level if level in quality_rules.LEVELS else ""

  @property
  def source(self) -> str:
    return str(self.values.get("source", ""))

  @property
  def title(self) -> str:
    return self.name or self.source

  @property
  def seconds(self) -> float:
    return float(self.values.get("duration", 0.0))

  def cells(self) -> list[str]:
    """Returns length, face, fit error and sound for the table."""
    height = self.quality.get("face_height")
    error = self.quality.get("fit_error")
    return [
      f"{self.seconds:.1f} s",
      "" if height is None else f"{height:.0f} px",
      "" if error is None else f"{100 * error:.1f} %",
      _sound(self.quality),
    ]

  def image(self, embedded: bool) -> str:
    """Returns the address of the pictures, or the pictures themselves."""
    if embedded:
      data = base64.b64encode(self.strip.read_bytes()).decode("ascii")
      return f"data:image/jpeg;base64,{data}"
    return urllib.parse.quote(f"{self.name}/{self.strip.name}".lstrip("/"))

  def charts(self) -> list[Chart]:
    """Returns the curves that have a value."""
    curves = self.quality["curves"]
    charts = []
    for title, least, names in _CHARTS:
      lines = {
        name: [None if x is None else factor * x for x in curves[curve]]
        for name, (curve, factor) in names.items()
      }
      if any(x is not None for values in lines.values() for x in values):
        charts.append(chart(title, curves["seconds"], lines, least))
    return charts

  def figures(self) -> list[tuple[quality_figures.Figure, str]]:
    """Returns each figure and, where a reason names it, its level."""
    levels = {}
    # The worst reason comes first, and so remains.
    for reason in reversed(self.quality["reasons"]):
      levels[reason["figure"]] = reason["level"]
    marked = []
    for figure in quality_figures.figures(self.quality):
      marks = [levels[name] for name in figure.names if name in levels]
      worst = max(marks, key=quality_rules.LEVELS.index, default="")
      marked.append((figure, worst))
    return marked


class Failure(NamedTuple):
  """A video of which no clip could be made: its name, and why."""

  name: str
  reason: str


class DataSet(NamedTuple):
  """What a folder holds: clips, worst first, and failures, by name."""

  clips: list[Clip]
  failures: list[Failure]


def write(folder: str | pathlib.Path) -> None:
  """Writes report.html, and for a folder of clips its manifest.json.

  Args:
    folder: a prepared clip, or a folder of prepared clips.
  """
  folder = pathlib.Path(folder)
  one = _read(folder / manifest.FILE_NAME)
  if one is not None and one.get("kind") != manifest.DATA_SET:
    _put(folder / FILE_NAME, render(DataSet([_clip(folder, "", one)], [])))
    return
  data = collect(folder)
  text = json.dumps(summary(data), indent=2, ensure_ascii=False)
  _put(folder / manifest.FILE_NAME, text + "\n")
  _put(folder / FILE_NAME, render(data))


def collect(folder: pathlib.Path) -> DataSet:
  """Reads the clips of a folder and what could not be prepared."""
  clips, failures = [], []
  for path in sorted(folder.glob(f"*/{manifest.FILE_NAME}")):
    name = path.parent.name
    if name.startswith("."):
      continue
    values = _read(path)
    if values is None:
      reason = f"its {manifest.FILE_NAME} is damaged: prepare it again."
      failures.append(Failure(name, reason))
    else:
      clips.append(_clip(path.parent, name, values))
  for record in (_read(folder / FAILED) or {}).get("clips", []):
    name = str(record.get("name") or record.get("video") or "?")
    reason = str(record.get("reason", "the reason was not recorded"))
    failures.append(Failure(name, reason))
  levels = ("", *quality_rules.LEVELS)
  clips.sort(key=lambda clip: (-levels.index(clip.level), clip.name))
  return DataSet(clips, sorted(failures))


def summary(data: DataSet) -> dict[str, Any]:
  """Returns the data set's manifest: its clips and totals."""
  clips = sorted(data.clips, key=lambda clip: clip.name)
  return {
    "kind": manifest.DATA_SET,
    "version": VERSION,
    "totals": {
      "clips": len(clips),
      "seconds": round(sum(clip.seconds for clip in clips), 2),
      "frames": sum(clip.values.get("num_records", 0) for clip in clips),
      **_counts(clips),
      "failed": len(data.failures),
    },
    "clips": [
      {
        "name": clip.name,
        "source": clip.source,
        "sha256": clip.values.get("sha256", ""),
        "seconds": clip.seconds,
        "frames": clip.values.get("num_records", 0),
        "quality": clip.level,
        "reasons": [r["what"] for r in clip.quality.get("reasons", [])],
      }
      for clip in clips
    ],
    "failures": [failure._asdict() for failure in data.failures],
  }


def render(data: DataSet) -> str:
  """Renders the page."""
  return _template().render(
    clips=data.clips,
    failures=data.failures,
    tiles=_tiles(data),
    num_open=NUM_OPEN,
    num_pictures=NUM_PICTURES,
  )


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("pir_jax.preparation"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template("report.html")


def _tiles(data: DataSet) -> list[tuple[Any, str, str]]:
  """Returns (value, name, level) of each total."""
  clips, failures = data
  seconds = sum(clip.seconds for clip in clips)
  length = f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
  return [
    (len(clips), "clip prepared" if len(clips) == 1 else "clips prepared", ""),
    (length, "of video", ""),
    *(
      (count, level, level if count else "")
      for level, count in _counts(clips).items()
    ),
    (len(failures), "failed", "rejected" if failures else ""),
  ]


def _counts(clips: list[Clip]) -> dict[str, int]:
  """Returns the number of clips of each level."""
  return {
    level: sum(clip.level == level for clip in clips)
    for level in quality_rules.LEVELS
  }


def _sound(v: dict[str, Any]) -> str:
  """Returns in two words whether the sound is in step."""
  if not v.get("sound_seconds"):
    return "none" if v else ""
  if v["shift"] is None:
    return "not known"
  if abs(v["shift"]) <= quality_rules.Config().shift[0]:
    return "in step"
  side = "late" if v["shift"] > 0 else "early"
  return f"{1000 * abs(v['shift']):.0f} ms {side}"


def chart(
  title: str,
  seconds: list[float],
  lines: dict[str, list[float | None]],
  least: tuple[float, float],
) -> Chart:
  """Lays out curves over time.

  Args:
    title: of the chart.
    seconds: of the values, rising.
    lines: name -> values; a gap stays a gap.
    least: the scale covers at least this range.
  """
  known = [x for values in lines.values() for x in values if x is not None]
  low, high = min([least[0], *known]), max([least[1], *known])
  first, last = seconds[0], max(seconds[-1], seconds[0] + 1e-3)

  def x(second):
    share = (second - first) / (last - first)
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

  def y(value):
    share = (high - value) / (high - low)
    return round(_TOP + share * (_HEIGHT - _TOP - _BOTTOM), 1)

  def path(values):
    # Moves and lines; a point without neighbours is a dot.
    parts, command = [], "M{} {}h0"
    for second, value in zip(seconds, values, strict=True):
      if value is None:
        command = "M{} {}h0"
      else:
        parts.append(command.format(x(second), y(value)))
        command = "L{} {}"
    return "".join(parts)

  return Chart(
    title,
    [
      Line(name, ink, path(values))
      for ink, (name, values) in zip(_INK, lines.items(), strict=False)
    ],
    [(str(round(value)), y(value)) for value in (low, high)],
    [(f"{second:g} s", x(second)) for second in _ticks(first, last)],
  )


def _ticks(first: float, last: float) -> list[float]:
  """Returns about four round seconds between two times."""
  rough = (last - first) / 4
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
  count = math.floor((last - first) / step + 1e-9)
  start = math.ceil(first / step) * step
  ticks = (round(start + i * step, 6) for i in range(count + 1))
  return [tick for tick in ticks if tick <= last]


def _clip(folder: pathlib.Path, name: str, values: dict) -> Clip:
  strip = folder / THUMBNAILS
  return Clip(name, values, strip if strip.is_file() else None)


def _read(path: pathlib.Path) -> dict | None:
  """Reads a JSON object; returns None where there is none to read."""
  if not path.is_file():
    return None
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except ValueError:
    return None
  return values if isinstance(values, dict) else None


def _put(path: pathlib.Path, text: str) -> None:
  """Replaces a file whole: a reader never sees half of it."""
  part = path.with_name(f".{uuid.uuid4().hex}.part")
  part.write_text(text, encoding="utf-8")
  part.replace(path)
