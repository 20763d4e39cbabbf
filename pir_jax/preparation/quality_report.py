"""report.html and manifest.json of a data set, made of its clips alone.

One page that explains itself: no scripts, no other files, no dates, so that
the same clips give the same bytes. Every text from outside is escaped.
"""

import html
import json
import pathlib
import uuid
from typing import Any, NamedTuple

from pir_jax.data import manifest
from pir_jax.preparation import quality_rules, report_card

FILE_NAME = "report.html"
THUMBNAILS = "thumbnails.jpg"
FAILED = "failed.json"
VERSION = 1
# Pictures of the worst so many clips are in the page; it shows the others'
# from the clips' folders, or a data set of thousands could not be opened.
NUM_PICTURES = 100
NUM_OPEN = 12  # Cards that are open at first.

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1.25rem 4rem;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  color: #1d2329; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0 0 .4rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0 .7rem; max-width: 46rem; }
a { color: inherit; text-decoration-color: #9aa4ad;
  text-underline-offset: 3px; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace;
  background: #f1f3f5; padding: .1em .3em; border-radius: 3px; }
.lead { color: #48525b; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0;
  margin: 1.2rem 0; list-style: none; }
.tiles li { border: 1px solid #d8dee3; border-radius: 8px; min-width: 7rem;
  padding: .55rem .9rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.2; }
.tiles span { color: #5b656e; font-size: .88rem; }
.tiles .usable b { color: #8a5300; } .tiles .rejected b { color: #b3261e; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 24rem;
  font-size: .92rem; }
th, td { text-align: left; padding: .45rem .7rem .45rem 0;
  border-bottom: 1px solid #e4e8eb; vertical-align: top; }
th { color: #5b656e; font-weight: 600; white-space: nowrap; }
td:first-child { min-width: 6.5rem; } td.wide { white-space: nowrap; }
.badge { display: inline-block; border-radius: 99px; padding: 0 .65em;
  font-size: .85rem; font-weight: 600; border: 1px solid #c3cad0;
  color: #48525b; white-space: nowrap; }
.badge.usable { background: #fff2d6; border-color: #e5b963; color: #7a4a00; }
.badge.rejected { background: #fde3e1; border-color: #e0837c; color: #9a1b14; }
.card { border: 1px solid #d8dee3; border-radius: 10px; margin: 1rem 0;
  padding: .9rem 1.1rem; }
.card > summary { cursor: pointer; font-weight: 600; font-size: 1.1rem; }
.card > summary .badge { margin-left: .5rem; }
.card img { display: block; width: 100%; min-width: 40rem; height: auto;
  border-radius: 4px; }
.card .note { color: #5b656e; font-size: .88rem; margin: .35rem 0 0; }
.reasons { margin: .8rem 0; padding: 0; list-style: none; }
.reasons li { border-left: 4px solid #e5b963; background: #fffaf0;
  padding: .45rem .8rem; margin: .4rem 0; }
.reasons li.rejected { border-color: #d2554c; background: #fff4f3; }
.reasons span { display: block; color: #48525b; font-size: .92rem; }
.curves { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  margin: 1rem 0; }
.curves figure { margin: 0; }
.curves figcaption { font-size: .88rem; color: #48525b; }
.curves svg { display: block; width: 100%; height: auto; }
.figures { display: grid; gap: .9rem 1.6rem; margin: 1rem 0 .3rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
.figures dt { color: #5b656e; font-size: .88rem; }
.figures dd { margin: 0; font-weight: 600; }
.figures dd + dd { font-weight: 400; font-size: .84rem; line-height: 1.4;
  color: #5b656e; }
.figures .usable, .figures .rejected { padding-left: .6rem;
  border-left: 4px solid #e5b963; }
.figures .rejected { border-color: #d2554c; }
.figures .usable dd:first-of-type { color: #7a4a00; }
.figures .rejected dd:first-of-type { color: #9a1b14; }
dd code { white-space: nowrap; }
footer { margin-top: 2.5rem; color: #5b656e; font-size: .9rem; }
@media (max-width: 46rem) { .wide { display: none; } }
@media print { .card { break-inside: avoid; } }
"""
_LEAD = (
  "Before a network can learn a talking face from video, each clip is "
  "prepared: the face is found and followed, a face model is fitted to every "
  "frame, and the sound is measured. This page says what was found, whether "
  "each clip is good enough to learn from, and what to do where it is not."
)
_VERDICTS = (
  "<b>Good</b>: nothing was found that would hurt. <b>Usable</b>: can be "
  "trained on, but something costs quality; the reason says what. "
  "<b>Rejected</b>: training on it would do harm or be in vain; leave it out "
  "or repair it. <b>Failed</b>: could not be prepared at all."
)
_FOOTER = (
  "All figures are measured from the files themselves. Limits between the "
  "verdicts are those of this program, chosen by its makers. This page holds "
  "pictures of people: treat it as you treat their video."
)


_WIDE = '<td class="wide">'  # Left out on a narrow screen.


class Failure(NamedTuple):
  """A video of which no clip could be made: its name, and why."""

  name: str
  reason: str


class DataSet(NamedTuple):
  """What a folder holds: clips, worst first, and failures, by name."""

  clips: list[report_card.Clip]
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
  found = collect(folder)
  text = json.dumps(summary(found), indent=2, ensure_ascii=False)
  _put(folder / manifest.FILE_NAME, text + "\n")
  _put(folder / FILE_NAME, render(found))


def collect(folder: pathlib.Path) -> DataSet:
  """The clips of a folder and what could not be prepared."""
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
    failures.append(Failure(name, str(record.get("reason", "no reason given"))))
  clips.sort(key=lambda clip: (-_rank(clip), clip.name))
  return DataSet(clips, sorted(failures))


def summary(found: DataSet) -> dict[str, Any]:
  """The data set's manifest: what is in it, in numbers."""
  clips = sorted(found.clips, key=lambda clip: clip.name)
  return {
    "kind": manifest.DATA_SET,
    "version": VERSION,
    "totals": {
      "clips": len(clips),
      "seconds": round(sum(_seconds(clip) for clip in clips), 2),
      "frames": sum(clip.values.get("num_records", 0) for clip in clips),
      **{level: _count(clips, level) for level in quality_rules.LEVELS},
      "failed": len(found.failures),
    },
    "clips": [
      {
        "name": clip.name,
        "source": clip.values.get("source", ""),
        "sha256": clip.values.get("sha256", ""),
        "seconds": _seconds(clip),
        "frames": clip.values.get("num_records", 0),
        "verdict": clip.appraisal.get("verdict", ""),
        "reasons": [r["what"] for r in clip.appraisal.get("reasons", [])],
      }
      for clip in clips
    ],
    "failures": [failure._asdict() for failure in found.failures],
  }


def render(found: DataSet) -> str:
  """The page."""
  clips, failures = found
  parts = [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>Preparation report</title><style>{_STYLE}</style></head><body>",
    f'<h1>Preparation report</h1><p class="lead">{_LEAD}</p>',
    _tiles(clips, failures),
    f"<p>{_VERDICTS}</p>",
  ]
  if len(clips) + len(failures) > 1:
    parts += ["<h2>All clips, the worst first</h2>", _table(clips, failures)]
  if clips:
    parts.append(f"<h2>{'Clip by clip' if len(clips) > 1 else 'The clip'}</h2>")
  for number, clip in enumerate(clips):
    parts.append(
      report_card.render(
        clip,
        number,
        is_open=number < NUM_OPEN,
        embedded=number < NUM_PICTURES,
      )
    )
  parts.append(f"<footer><p>{_FOOTER}</p></footer></body></html>\n")
  return "\n".join(parts)


def _tiles(clips, failures) -> str:
  seconds = sum(_seconds(clip) for clip in clips)
  length = f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
  tiles = [
    (len(clips), "clip prepared" if len(clips) == 1 else "clips prepared", ""),
    (length, "of video", ""),
  ]
  for level in quality_rules.LEVELS:
    count = _count(clips, level)
    tiles.append((count, level, level if count else ""))
  tiles.append((len(failures), "failed", "rejected" if failures else ""))
  items = "".join(
    f'<li class="{kind}"><b>{value}</b><span>{name}</span></li>'
    for value, name, kind in tiles
  )
  return f'<ul class="tiles">{items}</ul>'


def _table(clips, failures) -> str:
  head = "<th>Clip</th><th>Verdict</th>" + "".join(
    f'<th class="wide">{name}</th>'
    for name in ("Length", "Face", "Fit error", "Sound")
  )
  rows = [
    f"<tr><td>{html.escape(failure.name)}</td>"
    '<td><span class="badge rejected">failed</span></td>'
    f"{4 * (_WIDE + '</td>')}<td>{html.escape(failure.reason)}</td></tr>"
    for failure in failures
  ]
  for number, clip in enumerate(clips):
    v = clip.appraisal
    reasons = v.get("reasons", [])
    why = html.escape(" ".join(reason["what"] for reason in reasons))
    height, error = v.get("face_height"), v.get("fit_error")
    cells = (
      f"{_seconds(clip):.1f} s",
      "" if height is None else f"{height:.0f} px",
      "" if error is None else f"{100 * error:.1f} %",
      _sound(v),
    )
    rows.append(
      f'<tr><td><a href="#clip-{number}">{html.escape(clip.title)}</a></td>'
      f"<td>{report_card.badge(v.get('verdict', ''))}</td>"
      f"{''.join(f'{_WIDE}{cell}</td>' for cell in cells)}"
      f"<td>{why}</td></tr>"
    )
  return (
    f'<div class="scroll"><table><thead><tr>{head}<th>Why</th></tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _sound(v: dict[str, Any]) -> str:
  """Whether the sound is in step, in two words."""
  if not v.get("sound_seconds"):
    return "none" if v else ""
  if v["shift"] is None:
    return "not known"
  if abs(v["shift"]) <= quality_rules.Config().in_step:
    return "in step"
  side = "late" if v["shift"] > 0 else "early"
  return f"{1000 * abs(v['shift']):.0f} ms {side}"


def _clip(folder: pathlib.Path, name: str, values: dict) -> report_card.Clip:
  strip = folder / THUMBNAILS
  return report_card.Clip(name, values, strip if strip.is_file() else None)


def _seconds(clip: report_card.Clip) -> float:
  return float(clip.values.get("duration", 0.0))


def _count(clips, level: str) -> int:
  return sum(clip.appraisal.get("verdict") == level for clip in clips)


def _rank(clip: report_card.Clip) -> int:
  level = clip.appraisal.get("verdict")
  return (
    quality_rules.LEVELS.index(level) if level in quality_rules.LEVELS else -1
  )


def _read(path: pathlib.Path) -> dict | None:
  """A JSON object; None where there is none that can be read."""
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, ValueError):
    return None
  return values if isinstance(values, dict) else None


def _put(path: pathlib.Path, text: str) -> None:
  """Replaces a file whole: a reader never sees half of it."""
  part = path.with_name(f".{uuid.uuid4().hex}.part")
  part.write_text(text, encoding="utf-8")
  part.replace(path)
