"""A preparation killed over and over ends as one that was never disturbed."""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from pir_jax import assets
from pir_jax.data import hdtf

ROOT = pathlib.Path(__file__).parents[2]
NUM_CLIPS = 12
NUM_KILLS = 10


def make_videos(folder, count):
  """Pieces of the packaged clip, and one file that is damaged."""
  folder.mkdir()
  video = assets.fetch("demo_video")
  for number in range(count):
    start = 0.6 * number
    cut = hdtf.Cut(name=f"c{number:02d}", start=start, end=start + 0.7)
    cut.write(video, folder / cut.source)
  whole = (folder / "c00.mp4").read_bytes()
  (folder / "damaged.mp4").write_bytes(whole[: len(whole) // 10])
  return folder


def command(videos, output, *flags):
  return [
    *(sys.executable, "-m", "pir_jax.prepare"),
    *(f"--input={videos}", f"--output={output}", *flags),
  ]


def environment():
  """As a user has it: conftest's switches are for other tests."""
  switches = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
  return {k: v for k, v in os.environ.items() if k not in switches}


def run(*arguments):
  return subprocess.run(
    command(*arguments),
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
    check=False,
  )


def tree(folder):
  """Every file's bytes, by its place."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


@pytest.mark.slow
def test_killed_ten_times_the_data_set_is_the_same(tmp_path):
  videos = make_videos(tmp_path / "videos", NUM_CLIPS - 1)
  straight = run(videos, tmp_path / "straight", "--workers=1")
  assert straight.returncode == 1  # The damaged one.
  assert "damaged.mp4" in (tmp_path / "straight/failed.json").read_text()
  chance = random.Random(0)
  output = tmp_path / "killed"
  for _ in range(NUM_KILLS):
    process = subprocess.Popen(
      command(videos, output, "--workers=2"),
      cwd=ROOT,
      env=environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    # After none, one or two clips, somewhere in the next.
    for _ in range(chance.randrange(3)):
      process.stdout.readline()
    time.sleep(chance.uniform(0, 3))
    process.kill()
    process.wait()
    process.stdout.close()
  last = run(videos, output, "--workers=2")
  assert last.returncode == 1 and "Traceback" not in last.stderr
  clips = {path.parent.name for path in output.glob("*/manifest.json")}
  assert clips == {f"c{number:02d}" for number in range(NUM_CLIPS - 1)}
  assert tree(output) == tree(tmp_path / "straight")
  assert set(os.listdir(output)) == set(os.listdir(tmp_path / "straight"))


@pytest.mark.slow
def test_data_set_at_an_address_is_the_same(tmp_path):
  pytest.importorskip("fsspec")
  videos = make_videos(tmp_path / "videos", 2)
  here, there = tmp_path / "here", tmp_path / "there"
  assert run(videos, here).returncode == 1
  assert run(videos, f"file://{there}").returncode == 1
  assert tree(here) == tree(there)
  again = run(videos, f"file://{there}")
  assert "2 were done before, 0 prepared now, 1 failed" in again.stdout
  assert tree(here) == tree(there)
