"""A person is a folder; of it a browser sees what is listed, and no more."""

import os
import time

import pytest

from pir_jax.interface import people
from pir_jax.types import InputError


@pytest.fixture
def everybody(tmp_path):
  return people.People(tmp_path / "people")


def put(path, content="x"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)


def test_the_newest_person_comes_first(everybody):
  ann, bob = everybody.add("Ann"), everybody.add("Bob")
  ann._write({**ann.record, "created": 1.0})
  assert [person.name for person in everybody.all()] == ["Bob", "Ann"]
  assert everybody.get(bob.id).name == "Bob"
  everybody.delete(bob)
  assert [person.name for person in everybody.all()] == ["Ann"]


@pytest.mark.parametrize(
  "id", ["", "..", "../people", "0" * 16, "/etc", None, 7, ["a"], "A" * 16]
)
def test_nobody_has_another_id(everybody, id):
  everybody.add("Ann")
  with pytest.raises(InputError, match="no such person"):
    everybody.get(id)


def test_names_are_one_line_and_short(everybody):
  person = everybody.add("A\n\0nn\u202e " + "x" * 500)
  assert person.name.startswith("A nn xxx")
  assert len(person.name) <= 60
  assert everybody.add(" \n").name == "Nameless"


@pytest.mark.parametrize(
  "name",
  ["source.mp4", "data/report.html", "data/thumbnails.jpg"]
  + ["runs/demo/report/mouths.png", f"videos/{'a' * 16}/out.mp4"],
)
def test_what_a_browser_may_see(everybody, name):
  person = everybody.add("Ann")
  assert person.file(name) is None  # It is not there.
  put(person.folder / name)
  assert person.file(name) == person.folder / name


@pytest.mark.parametrize(
  "name",
  [
    "person.json",
    "data/manifest.json",
    "clip.mp4",
    "../secret.mp4",
    "videos/../../secret.mp4",
    "/etc/passwd",
    "source.mp4/../person.json",
    "source.mp4\n",
    "",
  ],
)
def test_what_a_browser_may_not_see(everybody, name):
  person = everybody.add("Ann")
  for other in ("data/manifest.json", "clip.mp4", "../secret.mp4"):
    put(person.folder / other)
  assert person.file(name) is None


def test_a_link_out_of_the_folder_is_not_served(everybody, tmp_path):
  person = everybody.add("Ann")
  put(tmp_path / "secret.mp4")
  os.symlink(tmp_path / "secret.mp4", person.folder / "source.mp4")
  assert person.file("source.mp4") is None


def test_a_variant_counts_when_all_its_networks_are_trained(everybody):
  person = everybody.add("Ann")
  put(person.runs("small") / "expression" / "finished")
  assert person.variant() is None
  for variant in ("live", "demo"):
    for stage in people.STAGES:
      path = person.runs(variant) / stage / "finished"
      put(path)
      then = time.time() - (60 if variant == "live" else 0)
      os.utime(path, (then, then))
  assert person.variant() == "demo"  # The newest.


def test_videos_are_the_newest_first_and_damaged_ones_left_out(everybody):
  person = everybody.add("Ann")
  made = [person.new_video(name) for name in ("one", "two")]
  put(made[0] / "out.mp4")
  put(person.folder / "videos" / "bad" / "video.json", "{")
  assert [(v.speech, v.is_made) for v in person.videos()] == [
    ("two", False),
    ("one", True),
  ]


def test_consent_is_written_down(everybody):
  person = everybody.add("Ann")
  assert not person.record.get("consent")
  person.allow()
  assert everybody.get(person.id).record["consent"] > 0
  assert person.name == "Ann"
