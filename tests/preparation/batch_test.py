"""Many clips: named, gone on with, failed one by one, the same in any order."""

import json
import os
import pathlib
import shutil

import pytest

from pir_jax.data import manifest, synthetic
from pir_jax.media import video_reader
from pir_jax.preparation import (
  batch,
  batch_output,
  batch_worker,
  pipeline,
)
from pir_jax.types import InputError

SETTINGS = pipeline.Settings()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """A prepared clip that stands for every result."""
  folder = tmp_path_factory.mktemp("prepared") / "clip"
  synthetic.write_synthetic(folder, num_frames=22, side=16)
  return folder


class Runner:
  """Does as a worker does, but in no time; remembers what it did.

  A video whose text starts with "bad" fails.
  """

  def __init__(self, clip, order=1, stop_after=None):
    self.clip, self.order, self.stop_after = clip, order, stop_after
    self.done = []

  def __call__(self, requests):
    for task, request in list(requests)[:: self.order]:
      if self.stop_after == len(self.done):
        half = pathlib.Path(request["output"]).parent / (
          "." + 32 * "a" + ".part"
        )
        half.mkdir()
        (half / "x").touch()
        raise KeyboardInterrupt
      yield batch.Outcome(task, self.prepare(request))

  def prepare(self, request):
    video, output = map(pathlib.Path, (request["video"], request["output"]))
    self.done.append(output.name)
    if video.read_text().startswith("bad"):
      return batch_worker.Answer(None, f"{video} is damaged.")
    if output.exists():
      shutil.rmtree(output)
    shutil.copytree(self.clip, output)
    made = manifest.load_manifest(output)
    made.source, made.sha256 = video.name, video_reader.digest(video)
    settings = pipeline.Settings.from_json(request["settings"])
    made.preparation = pipeline.key(made.sha256, settings.digest())
    made.save(output)
    return batch_worker.Answer(made.duration, "")


def write_videos(folder, **texts):
  folder.mkdir(exist_ok=True)
  for name, text in texts.items():
    (folder / f"{name}.mp4").write_text(text)
  return folder


def prepare(videos, output, runner, settings=SETTINGS, **given):
  inputs = batch.list_videos([str(videos)])
  return batch.prepare_all(inputs, str(output), settings, runner, **given)


def tree(folder):
  """Every file's bytes, by its place."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_any_order_and_any_stop_make_the_same_data_set(tmp_path, clip):
  videos = write_videos(tmp_path / "v", a="1", b="2", c="bad", d="4")
  prepare(videos, tmp_path / "straight", Runner(clip))
  output = tmp_path / "stopped"
  for stop in (1, 0, 2):
    with pytest.raises(KeyboardInterrupt):
      prepare(videos, output, Runner(clip, order=-1, stop_after=stop))
    assert not list(output.glob(".*"))
  last = Runner(clip)
  failed = prepare(videos, output, last)
  assert [outcome.task.name for outcome in failed] == ["c"]
  assert tree(output) == tree(tmp_path / "straight")
  assert len(last.done) < 4  # What was done was not done again.
  again = Runner(clip)
  prepare(videos, output, again)
  assert again.done == ["c"]
  assert tree(output) == tree(tmp_path / "straight")


def test_failure_is_recorded_until_it_succeeds(tmp_path, clip):
  videos = write_videos(tmp_path / "v", a="1", b="bad")
  (videos / "list.txt").write_text("a.mp4\n# not this\nb.mp4\ngone.mp4\n")
  output = tmp_path / "data"
  prepare(videos / "list.txt", output, Runner(clip))
  records = json.loads((output / batch_output.FAILED).read_text())["clips"]
  assert [record["name"] for record in records] == ["b", "gone"]
  assert "damaged" in records[0]["reason"]
  assert "gone.mp4 does not exist" in records[1]["reason"]
  # Another run over other videos forgets nothing.
  prepare(write_videos(tmp_path / "w", z="9"), output, Runner(clip))
  assert (output / batch_output.FAILED).is_file()
  write_videos(videos, b="2", gone="3")
  assert not prepare(videos / "list.txt", output, Runner(clip))
  assert not (output / batch_output.FAILED).exists()
  assert {path.name for path in output.iterdir() if path.is_dir()} == {
    *("a", "b", "gone", "z")
  }


def test_videos_called_alike_or_with_the_same_content_get_their_own_names(
  tmp_path, clip
):
  for name, text in (("x", "1"), ("y", "2"), ("z", "1")):
    write_videos(tmp_path / name, same=text, other=text)
  (tmp_path / "y" / "other.mp4").rename(tmp_path / "y" / "manifest.json.mp4")

  def names(places):
    inputs = [
      each
      for place in places
      for each in batch.list_videos([str(tmp_path / place)])
    ]
    tasks = batch.make_tasks(inputs, SETTINGS, {})
    return {str(task.input.video): task.name for task in tasks}

  found = names("xyz")
  assert found == names("zyx")
  assert len({name.casefold() for name in found.values()}) == len(found) == 6
  first = video_reader.digest(tmp_path / "x" / "same.mp4")[:8]
  assert found[str(tmp_path / "x" / "same.mp4")] == f"same-{first}"
  assert found[str(tmp_path / "z" / "same.mp4")] == f"same-{first}-2"
  assert "manifest.json" not in found.values()


def test_renamed_video_is_known_by_what_is_in_it(tmp_path, clip):
  videos = write_videos(tmp_path / "v", a="1", b="2")
  output = tmp_path / "data"
  prepare(videos, output, Runner(clip))
  (videos / "a.mp4").rename(videos / "c.mp4")
  runner = Runner(clip)
  prepare(videos, output, runner)
  assert runner.done == []
  prepare(videos, tmp_path / "anew", Runner(clip))
  assert tree(output) == tree(tmp_path / "anew")


def test_another_video_of_the_same_name_replaces_nothing(tmp_path, clip):
  output = tmp_path / "data"
  prepare(write_videos(tmp_path / "v", a="1"), output, Runner(clip))
  prepare(write_videos(tmp_path / "w", a="2"), output, Runner(clip))
  second = video_reader.digest(tmp_path / "w" / "a.mp4")[:8]
  names = {path.parent.name for path in output.glob("*/manifest.json")}
  assert names == {"a", f"a-{second}"}


def test_other_settings_are_refused_or_replace(tmp_path, clip):
  videos = write_videos(tmp_path / "v", a="1")
  output = tmp_path / "data"
  prepare(videos, output, Runner(clip))
  before = tree(output)
  smaller = pipeline.Settings(resolution=256)
  with pytest.raises(InputError, match="--overwrite"):
    prepare(videos, output, Runner(clip), smaller)
  assert tree(output) == before
  runner = Runner(clip)
  prepare(videos, output, runner, smaller, overwrite=True)
  assert runner.done == ["a"]
  assert tree(output) != before


def test_two_preparations_do_not_write_one_data_set(tmp_path):
  with batch_output.Collection(str(tmp_path / "data")):
    with pytest.raises(InputError, match="another preparation"):
      with batch_output.Collection(str(tmp_path / "data")):
        pass
  assert not (tmp_path / "data").exists()  # Nothing was put there.


def test_places_that_are_none(tmp_path, clip):
  with pytest.raises(InputError, match="does not exist"):
    batch.list_videos([str(tmp_path / "no")])
  with pytest.raises(InputError, match="no video"):
    batch.list_videos([str(tmp_path)])
  (tmp_path / "empty.txt").touch()
  with pytest.raises(InputError, match="names no video"):
    batch.list_videos([str(tmp_path / "empty.txt")])
  with pytest.raises(InputError, match="one prepared clip"):
    batch_output.Collection(str(clip))
  videos = write_videos(tmp_path / "v", a="1")
  (tmp_path / "mine" / "a").mkdir(parents=True)
  with pytest.raises(InputError, match="no prepared clip"):
    prepare(videos, tmp_path / "mine", Runner(clip))
  assert (tmp_path / "mine" / "a").is_dir()


def test_settings_are_named_by_what_their_files_hold(tmp_path):
  one, two = tmp_path / "one.jpg", tmp_path / "two.jpg"
  one.write_bytes(b"a"), two.write_bytes(b"a")
  first = pipeline.Settings(face=str(one))
  assert first.digest() == pipeline.Settings(face=str(two)).digest()
  two.write_bytes(b"b")
  assert first.digest() != pipeline.Settings(face=str(two)).digest()
  assert first.digest() != SETTINGS.digest()
  assert pipeline.Settings.from_json(first.to_json()) == first


def test_workers_fit_the_machine():
  assert batch.default_workers(1) == 1
  assert 1 <= batch.default_workers(10**6) <= (os.cpu_count() or 1)
