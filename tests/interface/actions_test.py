"""What buttons do: jobs of the commands, for who consents, in one folder."""

import json
import pathlib
import sys
import time

import pytest

from pir_jax.data import synthetic
from pir_jax.interface import actions, jobs, people
from pir_jax.types import InputError

MP4 = b"\0\0\0\x20ftypisom" + b"\0" * 100
WAV = b"RIFF\0\0\0\0WAVEfmt "


def quick(command):
  """Stands for the commands: makes what they make, and prints it."""
  code = (
    "import pathlib, sys, time\n"
    "name, *rest = sys.argv[1:]\n"
    "flags = dict(part.split('=', 1) for part in rest if '=' in part)\n"
    "print(name, *rest)\n"
    "if name == 'train':\n"
    "  folder = pathlib.Path(flags['--workdir'])\n"
    "  folder.mkdir(parents=True, exist_ok=True)\n"
    "  if flags.get('--config.loop.num_steps') == '7': time.sleep(60)\n"
    "  (folder / 'finished').write_text('20')\n"
    "if name == 'reenact':\n"
    "  if flags['--audio'].endswith('flac'): sys.exit('reenact: no sound.')\n"
    "  pathlib.Path(flags['--output']).write_bytes(b'video')\n"
  )
  return [sys.executable, "-S", "-c", code, *command]


@pytest.fixture
def desk(tmp_path):
  desk = actions.Actions(
    tmp_path, pathlib.Path("experiments"), 1 << 20, to_line=quick, grace=5.0
  )
  yield desk
  desk.close()


def upload(desk, content, name):
  folder = desk.uploads.folder / "abc"
  folder.mkdir(exist_ok=True)
  (folder / name).write_bytes(content)
  return {"path": str(folder / name), "orig_name": name}


@pytest.fixture
def ann(desk):
  """A person whose clip is prepared."""
  person = desk.people.add("Ann")
  (person.folder / "clip.mp4").write_bytes(MP4)
  synthetic.write_synthetic(person.data, num_frames=22)
  return person


@pytest.fixture
def trained(ann):
  """A person whose networks are trained."""
  for stage in people.STAGES:
    folder = ann.runs("demo") / stage
    folder.mkdir(parents=True)
    (folder / "finished").write_text("20")
  return ann


def train(desk, person, **options):
  values = {"consent": True, "variant": "demo", "steps": 20, **options}
  return desk.train(person.id, **values)


def test_a_video_becomes_a_person_with_a_job(desk):
  person = desk.prepare("", upload(desk, MP4, "my movie.mp4"))
  assert person.name == "my movie"
  (job,) = desk.queue.jobs(person.id)
  assert [command[0] for command in job.commands] == [
    "prepare",
    "interface.source_copy",
  ]
  assert f"--video={person.clip}" in job.commands[0]
  assert person.clip.read_bytes() == MP4


def test_what_is_no_video_makes_no_person(desk):
  for bad in (None, upload(desk, b"text", "x.mp4"), {"path": "/etc/passwd"}):
    with pytest.raises(InputError):
      desk.prepare("Ann", bad)
  assert not desk.people.all() and not desk.queue.jobs()


def test_nobody_is_trained_without_consent(desk, ann):
  for consent in (False, None, "false", 1):
    with pytest.raises(InputError, match="consent"):
      train(desk, ann, consent=consent)
  assert desk.newest(ann, actions.TRAIN) is None
  train(desk, ann)
  assert ann.record["consent"]


def test_only_choices_of_the_page_become_arguments(desk, ann):
  variants = ("demo --workdir=/", "../demo", None, ["demo"], {})
  steps = (-1, float("nan"), float("inf"), "20", True, None, 1e9)
  for options in (
    *({"variant": variant} for variant in variants),
    *({"steps": count} for count in steps),
  ):
    with pytest.raises(InputError):
      train(desk, ann, **options)
  assert desk.newest(ann, actions.TRAIN) is None


def test_nothing_trains_or_speaks_before_its_time(desk, ann):
  with pytest.raises(InputError, match="not trained"):
    desk.speak(ann.id, upload(desk, WAV, "a.wav"))
  with pytest.raises(InputError, match="not trained"):
    desk.compare(ann.id)
  bob = desk.prepare("Bob", upload(desk, MP4, "b.mp4"))
  with pytest.raises(InputError, match="not prepared"):
    train(desk, bob)


def test_training_runs_three_networks_with_previews(desk, ann):
  job = train(desk, ann)
  assert len(job.commands) == 3
  for stage, command in zip(people.STAGES, job.commands, strict=True):
    assert f"--config=experiments/{stage}.py:demo" in command
    assert f"--workdir={ann.runs('demo') / stage}" in command
    assert "--config.loop.num_steps=20" in command
  job = desk.queue.wait(job.name, 20.0)
  assert job.state == jobs.DONE
  assert ann.variant() == "demo"


def test_going_on_leaves_out_what_is_done(desk, ann):
  job = train(desk, ann, steps=7)  # Stands still in its first command.
  while not desk.queue.log(job).exists():
    time.sleep(0.01)
  desk.stop(ann.id)
  assert desk.queue.wait(job.name, 10.0).state == jobs.STOPPED
  path = desk.queue.log(job).with_suffix(".json")
  state = json.loads(path.read_text())
  desk.queue._jobs[job.name].step = 2  # As if two networks had been done.
  again = train(desk, ann, steps=7)
  assert again.commands == state["commands"][2:]
  desk.stop(ann.id)


def test_a_video_is_made_and_its_speech_removed(desk, trained):
  ann = trained
  job = desk.speak(ann.id, upload(desk, WAV, "a voice.wav"))
  assert desk.queue.wait(job.name, 10.0).state == jobs.DONE
  desk.queue.wait(desk.compare(ann.id).name, 10.0)  # `tidy` came before.
  (video,) = ann.videos()
  assert (video.speech, video.is_made) == ("a voice", True)
  names = {p.name for p in (ann.folder / "videos" / video.id).iterdir()}
  assert names == {"out.mp4", "video.json"}


def test_a_video_that_fails_leaves_its_sentence_and_no_file(desk, trained):
  ann = trained
  job = desk.speak(ann.id, upload(desk, b"fLaC" * 9, "a.flac"))
  job = desk.queue.wait(job.name, 10.0)
  assert (job.state, job.sentence) == (jobs.FAILED, "no sound.")
  desk.queue.wait(desk.compare(ann.id).name, 10.0)
  assert not list((ann.folder / "videos").iterdir())


def test_a_deleted_person_leaves_nothing(desk, ann, tmp_path):
  train(desk, ann, steps=7)
  desk.delete(ann.id)
  assert not [path for path in tmp_path.rglob("*") if path.is_file()]
