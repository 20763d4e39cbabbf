"""The parts of the page show what is on disk, and run nothing of it."""

import html.parser
import pathlib
import sys
import time

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.interface import actions, people, views
from pir_jax.runtime import metric_writer

SCRIPT = '<img src=x onerror="alert(1)">\'<script>'
KINDS = (actions.PREPARE, actions.TRAIN, actions.SPEAK, actions.COMPARE)


@pytest.fixture
def desk(tmp_path):
  desk = actions.Actions(
    tmp_path,
    pathlib.Path("experiments"),
    1 << 20,
    to_line=lambda command: [sys.executable, "-S", "-c", command[1]],
  )
  yield desk
  desk.close()


class Tags(html.parser.HTMLParser):
  """Collects a document's tags and attributes."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.names, self.open = set(), set(), []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.names |= {name for name, _ in attrs}
    if tag not in ("img", "line", "path"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    if tag == (self.open or [None])[-1]:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def check(parts):
  """Every part is well-formed, and runs nothing."""
  for part in parts:
    read = Tags(part)
    assert not read.open
    assert "script" not in read.tags
    assert not [name for name in read.names if name.startswith("on")]


def test_nobody_yet_is_explained(desk):
  parts = views.render(desk, None)
  check(parts)
  assert "Begin with a video" in parts.status
  assert all(len(part) > 20 for part in parts)


def test_everything_that_a_user_names_is_escaped(desk):
  person = desk.people.add(SCRIPT)
  folder = person.new_video(SCRIPT)
  (folder / "out.mp4").write_text("x")
  code = f"print({SCRIPT!r}); raise SystemExit('train: ' + {SCRIPT!r})"
  for kind in KINDS:
    job = desk.queue.add(person.id, kind, SCRIPT, [["train", code]])
    assert desk.queue.wait(job.name, 10.0).state == "failed"
  parts = views.render(desk, person)
  check(parts)
  text = "".join(parts)
  assert "<img src=x" not in text and "&lt;img src=x" in text


def test_a_failure_is_shown_as_its_sentence_and_the_log_apart(desk):
  person = desk.people.add("Ann")
  code = (
    "print('figures of others')\n"
    f"raise SystemExit('prepare: {person.folder}/clip.mp4 is `damaged`.')"
  )
  job = desk.queue.add(person.id, actions.PREPARE, "X", [["prepare", code]])
  desk.queue.wait(job.name, 10.0)
  parts = views.render(desk, person)
  assert "clip.mp4 is <code>damaged</code>." in parts.status
  assert "figures of others" not in parts.verdict + parts.status
  assert "figures of others" in parts.log
  assert str(person.folder) not in "".join(parts)


def test_what_runs_is_shown_to_everybody_with_its_time_left(desk):
  ann, bob = desk.people.add("Ann"), desk.people.add("Bob")
  line = "triplane 20/80  0.5 s/step  loss 0.3  30 s left"
  code = f"import time; print({line!r}, flush=True); time.sleep(60)"
  job = desk.queue.add(ann.id, "train", "Training Ann", [["train", code]] * 3)
  desk.queue.add(bob.id, "train", "Training Bob", [["train", code]])
  while not (path := desk.queue.log(job)).exists() or not path.read_text():
    time.sleep(0.01)
  for person in (ann, bob, None):
    status = views.render(desk, person).status
    assert "part 1 of 3" in status and "step 20 of 80" in status
    assert "30 s left" in status and "25.0%" in status
    assert "Training Bob" in status and "waits for its turn" in status


def test_curves_and_previews_of_a_training(desk):
  person = desk.people.add("Ann")
  lines = "\n".join(f"inpainting {i}/9  loss {9 - i}" for i in range(1, 10))
  command = ["train", f"print({lines!r})"]
  job = desk.queue.add(person.id, "train", "X", [command], "demo")
  desk.queue.wait(job.name, 10.0)
  folder = person.runs("demo") / "inpainting" / "tensorboard"
  events = metric_writer.Events(folder)
  events.add_image("faces", np.zeros((4, 4, 3), np.uint8), 9)
  events.close()
  parts = views.render(desk, person)
  check(parts)
  assert parts.training.count("<svg") == 1
  assert "data:image/png;base64," in parts.training
  assert "after step 9" in parts.training


def test_a_prepared_and_measured_person(desk):
  person = desk.people.add("Ann")
  made = synthetic.write_synthetic(person.data, num_frames=22)
  path = person.data / "manifest.json"
  reason = {"figure": "x", "level": "usable", "what": "Dark.", "remedy": "Go."}
  made.quality = {"level": "usable", "reasons": [reason]}
  made.save(person.data)
  assert path.is_file()
  for stage in people.STAGES:
    folder = person.runs("demo") / stage
    folder.mkdir(parents=True)
    (folder / "finished").write_text("1")
  report = person.runs("demo") / "report"
  report.mkdir()
  (report / "table.txt").write_text("PSNR <20>")
  parts = views.render(desk, person)
  check(parts)
  assert "usable" in parts.verdict and "Dark." in parts.verdict
  assert "PSNR &lt;20&gt;" in parts.comparison
  address = f"media/{person.id}/runs/demo/report/mouths.png"
  assert address in parts.comparison


@pytest.mark.parametrize(
  "points",
  [[(1, 2.0)], [(1, 2.0), (2, 2.0)], [(1, 3.0), (50, 1.0), (100, 0.5)]],
)
def test_a_curve_stays_in_its_picture_and_falls_where_the_loss_does(points):
  chart = views.chart("triplane", points)
  places = chart.path[1:].removesuffix("h1").split("L")
  xs, ys = zip(*(map(float, place.split()) for place in places), strict=True)
  assert list(xs) == sorted(xs) and list(ys) == sorted(ys)
  assert chart.left <= min(xs) and max(xs) <= chart.right
  assert 0 <= min(ys) and max(ys) <= chart.height
