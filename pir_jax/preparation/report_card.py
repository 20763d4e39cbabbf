"""A clip on the page: its pictures, curves and figures.

Every text from outside is escaped; numbers are formatted, never pasted.
"""

import base64
import html
import math
import pathlib
import urllib.parse
from typing import Any, NamedTuple

from pir_jax.preparation import figures, quality_rules

_WIDTH, _HEIGHT = 480, 140
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 6, 8, 20
_INK = ("#2b5f8a", "#c46a1b")
_DIM = "#5b656e"


class Clip(NamedTuple):
  """A prepared clip as the page needs it.

  Attributes:
    name: of its folder; "" where the page lies in that folder.
    values: its manifest.
    strip: its pictures, where there are any.
  """

  name: str
  values: dict[str, Any]
  strip: pathlib.Path | None

  @property
  def appraisal(self) -> dict[str, Any]:
    """What was found; empty where nobody looked."""
    return self.values.get("appraisal") or {}

  @property
  def title(self) -> str:
    return self.name or str(self.values.get("source", ""))


class Line(NamedTuple):
  """One curve of a chart: its name and values, None where unknown."""

  name: str
  values: list[float | None]


def render(clip: Clip, number: int, *, is_open: bool, embedded: bool) -> str:
  """The card.

  Args:
    clip: to be shown.
    number: of the card on the page: its address.
    is_open: whether it is unfolded at first.
    embedded: whether its pictures are in the page or beside it.
  """
  v = clip.appraisal
  body = [_strip(clip, embedded)]
  if v:
    body = [_reasons(v), *body, _curves(v["curves"]), _figures(v)]
  else:
    body.append("<p>This clip was prepared without being appraised.</p>")
  source = str(clip.values.get("source", ""))
  if source and source != clip.title:
    body.insert(0, f'<p class="note">from {html.escape(source)}</p>')
  return (
    f'<details class="card"{" open" if is_open else ""}>'
    f"<summary>{html.escape(clip.title)} {badge(v.get('verdict', ''))}"
    f'</summary><div id="clip-{number}">{"".join(body)}</div></details>'
  )


def badge(level: str) -> str:
  """A verdict, coloured where something is wrong."""
  if level not in quality_rules.LEVELS:
    return '<span class="badge">not appraised</span>'
  return f'<span class="badge {level}">{level}</span>'


def _strip(clip: Clip, embedded: bool) -> str:
  if clip.strip is None:
    return ""
  if embedded:
    data = base64.b64encode(clip.strip.read_bytes()).decode("ascii")
    source = f"data:image/jpeg;base64,{data}"
  else:
    place = f"{clip.name}/{clip.strip.name}" if clip.name else clip.strip.name
    source = html.escape(urllib.parse.quote(place))
  return (
    f'<div class="scroll"><img src="{source}" loading="lazy" alt="Frames of '
    'the clip with landmarks and mask drawn in"></div>'
    '<p class="note">Frames through the clip, and the one with the worst fit. '
    "Green dots: points found on the face; they should lie on eyes, brows, "
    "nose and lips. Yellow line: what a network will paint anew; it should "
    "enclose the face with the mouth wide open, and little else.</p>"
  )


def _reasons(v: dict[str, Any]) -> str:
  items = "".join(
    f'<li class="{_level(reason["level"])}">{html.escape(reason["what"])}'
    f"<span>{_code(reason['remedy'])}</span></li>"
    for reason in v["reasons"]
  )
  return f'<ul class="reasons">{items}</ul>' if items else ""


def _figures(v: dict[str, Any]) -> str:
  wrong = {}
  for reason in reversed(v["reasons"]):  # The worst, which is first, remains.
    wrong[reason["figure"]] = _level(reason["level"])
  items = []
  for figure in figures.describe(v):
    marks = [wrong[name] for name in figure.names if name in wrong]
    kind = max(marks, key=quality_rules.LEVELS.index) if marks else ""
    items.append(
      f'<div class="{kind}"><dt>{html.escape(figure.title)}</dt>'
      f"<dd>{_code(figure.text)}</dd>"
      f"<dd>{_code(figure.meaning)}</dd></div>"
    )
  return f'<dl class="figures">{"".join(items)}</dl>'


def _curves(curves: dict[str, list[float | None]]) -> str:
  seconds = curves["seconds"]

  def percent(name):
    return [None if x is None else 100 * x for x in curves[name]]

  charts = (
    (
      "Fit error, % of face height: should be low and even",
      [Line("fit error", percent("fit_error"))],
      (0.0, 3.0),
    ),
    (
      "Lips' opening, % of face height",
      [Line("opening", percent("opening"))],
      (0.0, 5.0),
    ),
    (
      "Loudness of the sound, dB of full scale",
      [Line("loudness", curves["loudness"])],
      (-60.0, 0.0),
    ),
    (
      "Head turns, degrees",
      [Line("sideways", curves["yaw"]), Line("up, down", curves["pitch"])],
      (-20.0, 20.0),
    ),
  )
  items = "".join(
    f"<figure><figcaption>{title}{_legend(lines)}</figcaption>"
    f"{chart(seconds, lines, least)}</figure>"
    for title, lines, least in charts
    if any(x is not None for line in lines for x in line.values)
  )
  return f'<div class="curves">{items}</div>'


def _legend(lines: list[Line]) -> str:
  if len(lines) < 2:
    return ""
  return "".join(
    f' <span style="color:{ink}">&#9644; {html.escape(line.name)}</span>'
    for ink, line in zip(_INK, lines, strict=False)
  )


def chart(
  seconds: list[float | None],
  lines: list[Line],
  least: tuple[float, float],
) -> str:
  """Lines over time as SVG.

  Args:
    seconds: of the values, rising.
    lines: on one scale; a gap stays a gap.
    least: the scale covers at least this range, so that calm curves look calm.
  """
  known = [x for line in lines for x in line.values if x is not None]
  low, high = min([least[0], *known]), max([least[1], *known])
  first, last = seconds[0], max(seconds[-1], seconds[0] + 1e-3)

  def x(second):
    share = (second - first) / (last - first)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

  def y(value):
    share = (high - value) / (high - low)
    return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

  parts = []
  for value in (low, high):
    parts.append(
      f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" '
      f'y2="{y(value):.1f}" stroke="#e0e4e8"/>'
      f'<text x="{_LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end">'
      f"{round(value)}</text>"
    )
  for second in _ticks(first, last):
    parts.append(
      f'<text x="{x(second):.1f}" y="{_HEIGHT - 4}" text-anchor="middle">'
      f"{second:g} s</text>"
    )
  for ink, line in zip(_INK, lines, strict=False):
    path = _path(seconds, line.values, x, y)
    parts.append(
      f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="1.5" '
      'stroke-linejoin="round" stroke-linecap="round"/>'
    )
  return (
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" fill="{_DIM}" '
    f'font-family="sans-serif" role="img">{"".join(parts)}</svg>'
  )


def _path(seconds, values, x, y) -> str:
  """Moves and lines; a point without neighbours is a dot."""
  parts, drawing = [], False
  for second, value in zip(seconds, values, strict=True):
    if value is None:
      drawing = False
      continue
    place = f"{x(second):.1f} {y(value):.1f}"
    parts.append(f"L{place}" if drawing else f"M{place}h0")
    drawing = True
  return "".join(parts)


def _ticks(first: float, last: float) -> list[float]:
  """About four round seconds between two times."""
  rough = (last - first) / 4
  power = 10 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
  count = math.floor((last - first) / step + 1e-9)
  start = math.ceil(first / step) * step
  ticks = (round(start + i * step, 6) for i in range(count + 1))
  return [tick for tick in ticks if tick <= last]


def _level(level: str) -> str:
  return level if level in quality_rules.LEVELS else ""


def _code(text: str) -> str:
  """Escaped, with `commands` set off."""
  parts = html.escape(text).replace(" %", "&nbsp;%").split("`")
  return "".join(
    f"<code>{part}</code>" if number % 2 else part
    for number, part in enumerate(parts)
  )
