"""The page of a data set: whole, self-contained, safe, the same each time."""

import html.parser
import json
import pathlib
import re

import pytest
from PIL import Image

from pir_jax.data import manifest
from pir_jax.preparation import quality_report

HOSTILE = "<script>alert('x')</script> & \"co\" `rm`.mp4"
QUALITY = dict(
  level="good",
  reasons=[],
  seconds=4.0,
  rate=25.0,
  width=64,
  height=64,
  num_frames=4,
  measured=1.0,
  interpolated=0.0,
  absent=0.0,
  longest_gap=0.0,
  num_shots=1,
  num_people=1,
  face_height=300.0,
  smallest_face=280.0,
  detail=1.8,
  effective_height=166.0,
  fit_error=0.011,
  worst_error=0.02,
  worst_time=3.1,
  yaw=[-12.0, 9.0],
  pitch=[-3.0, 8.0],
  roll=[-4.0, 4.0],
  blinks=None,
  sound_seconds=4.0,
  sound_rate=48000,
  loudness=-20.0,
  noise=-60.0,
  speech=-18.0,
  clipped=0.0001,
  silence=0.2,
  shift=None,
  shift_error=None,
  shift_unknown="the lips do not move.",
  num_phones=0,
  num_closures=0,
  curves=dict(
    seconds=[0.0, 1.0, 2.0, 3.0],
    fit_error=[0.01, None, 0.02, 0.01],
    opening=[0.0, None, 0.01, 0.02],
    loudness=[-30.0, -40.0, -35.0, -20.0],
    yaw=[1.0, None, 2.0, 3.0],
    pitch=[1.0, None, 2.0, 3.0],
  ),
)
BAD = dict(
  level="rejected",
  reasons=[
    dict(
      figure="shift",
      level="rejected",
      what="The sound comes 300 ms after the lips.",
      remedy="Run `ffmpeg <x>`.",
    )
  ],
)


def add_clip(folder, name, source="me.mp4", **changes) -> pathlib.Path:
  clip = folder / name
  clip.mkdir(parents=True)
  values = dict(
    source=source,
    sha256="0" * 64,
    duration=4.0,
    num_records=4,
    quality=QUALITY | changes,
  )
  (clip / manifest.FILE_NAME).write_text(json.dumps(values))
  Image.new("RGB", (60, 20), "teal").save(clip / quality_report.THUMBNAILS)
  return clip


@pytest.fixture
def data_set(tmp_path):
  folder = tmp_path / "data"
  add_clip(folder, "b good")
  add_clip(folder, "a<b>", source=HOSTILE, **BAD)
  add_clip(folder, "usable", level="usable")
  failed = dict(clips=[dict(name=HOSTILE, reason="it has no <face>.")])
  (folder / quality_report.FAILED).write_text(json.dumps(failed))
  return folder


class Outline(html.parser.HTMLParser):
  """Tags and what they refer to; complains of what is not closed."""

  VOID = {"meta", "img", "br"}

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.sources, self.words = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    values = dict(attributes)
    self.sources += [v for k, v in values.items() if k in ("src", "href")]
    assert not [name for name in values if name.startswith("on")]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


def read(folder) -> tuple[str, Outline]:
  text = (folder / quality_report.FILE_NAME).read_text(encoding="utf-8")
  return text, Outline(text)


def test_one_file_without_scripts_or_addresses(data_set):
  quality_report.write(data_set)
  text, outline = read(data_set)
  assert "script" not in outline.tags and "link" not in outline.tags
  for source in outline.sources:
    assert source.startswith(("data:image/jpeg;base64,", "#clip-"))
  assert not re.search(r"https?://|@import|url\(", text)


def test_names_from_outside_are_shown_as_they_are(data_set):
  quality_report.write(data_set)
  text, outline = read(data_set)
  words = "".join(outline.words)
  # Backticks set a command off only in our own sentences.
  assert words.count(HOSTILE) == 2
  assert "it has no <face>." in words
  assert "ffmpeg <x>" in words
  assert "<script" not in text


def test_a_name_with_quotes_and_brackets_is_escaped(tmp_path):
  name = "it's <damaged>.mp4"
  add_clip(tmp_path, name, source=name)
  quality_report.write(tmp_path)
  text, outline = read(tmp_path)
  assert name in "".join(outline.words)
  assert "<damaged>" not in text and "it's" not in text


def test_the_worst_comes_first(data_set):
  quality_report.write(data_set)
  words = "".join(read(data_set)[1].words)
  table = words[words.index("All clips, the worst") :]
  order = [table.index(n) for n in (HOSTILE, "a<b>", "usable", "b good")]
  assert order == sorted(order)


def test_the_same_clips_give_the_same_bytes(data_set):
  quality_report.write(data_set)
  files = (quality_report.FILE_NAME, manifest.FILE_NAME)
  first = [(data_set / name).read_bytes() for name in files]
  quality_report.write(data_set)  # Now with its own manifest beside the clips.
  assert [(data_set / name).read_bytes() for name in files] == first
  assert not list(data_set.glob("*.part")) + list(data_set.glob(".*"))


def test_the_data_sets_manifest_counts(data_set):
  quality_report.write(data_set)
  made = json.loads((data_set / manifest.FILE_NAME).read_text())
  assert made["kind"] == manifest.DATA_SET
  assert made["totals"] == dict(
    clips=3, seconds=12.0, frames=12, good=1, usable=1, rejected=1, failed=1
  )
  assert [clip["name"] for clip in made["clips"]] == [
    "a<b>",
    "b good",
    "usable",
  ]
  assert made["clips"][0]["reasons"] == [BAD["reasons"][0]["what"]]
  assert made["failures"] == [dict(name=HOSTILE, reason="it has no <face>.")]


def test_a_single_clip_keeps_its_manifest(tmp_path):
  clip = add_clip(tmp_path, "me", source=HOSTILE)
  before = (clip / manifest.FILE_NAME).read_bytes()
  quality_report.write(clip)
  assert (clip / manifest.FILE_NAME).read_bytes() == before
  words = "".join(read(clip)[1].words)
  assert HOSTILE in words and "All clips, the worst" not in words


def test_a_damaged_clip_is_reported(data_set):
  (data_set / "usable" / manifest.FILE_NAME).write_text("{")
  quality_report.write(data_set)
  made = json.loads((data_set / manifest.FILE_NAME).read_text())
  assert made["totals"]["failed"] == 2
  assert "damaged" in "".join(read(data_set)[1].words)


def test_a_clip_without_quality_or_pictures_is_shown(tmp_path):
  clip = add_clip(tmp_path, "me")
  values = json.loads((clip / manifest.FILE_NAME).read_text())
  (clip / manifest.FILE_NAME).write_text(json.dumps(values | {"quality": {}}))
  (clip / quality_report.THUMBNAILS).unlink()
  quality_report.write(tmp_path)
  words = "".join(read(tmp_path)[1].words)
  assert "without its quality" in words and "not measured" in words


def test_pictures_of_a_large_data_set_stay_beside_it(data_set, monkeypatch):
  monkeypatch.setattr(quality_report, "NUM_PICTURES", 1)
  quality_report.write(data_set)
  sources = [s for s in read(data_set)[1].sources if not s.startswith("#")]
  assert sources[0].startswith("data:")
  assert sources[1:] == [
    f"usable/{quality_report.THUMBNAILS}",
    f"b%20good/{quality_report.THUMBNAILS}",
  ]


def test_colour_only_where_something_is_wrong(data_set, tmp_path):
  quality_report.write(data_set)
  text, _ = read(data_set)
  assert len(re.findall(r'<div class="rejected"><dt>', text)) == 1
  good = add_clip(tmp_path / "other", "good")
  quality_report.write(good)
  body = read(good)[0].split("</style>")[1]
  assert 'class="rejected"' not in body and 'class="usable"' not in body


def test_charts_leave_gaps_and_stay_inside():
  values = [0.0, None, 50.0, 40.0, None, 10.0]
  seconds = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
  chart = quality_report.chart("x", seconds, {"x": values}, (0.0, 3.0))
  path = chart.lines[0].path
  assert path.count("M") == 3 and path.count("L") == 1
  places = re.findall(r"[ML]([\d.]+) ([\d.]+)", path)
  assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 140 for x, y in places)
  # The lowest value lies lowest.
  assert float(places[0][1]) == max(float(y) for _, y in places)


def test_a_chart_of_one_moment():
  chart = quality_report.chart("x", [1.0], {"x": [2.0]}, (0.0, 3.0))
  assert "nan" not in chart.lines[0].path and "M" in chart.lines[0].path
