"""A real run that is killed, preempted, damaged or starved ends as if not."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import chex
import orbax.checkpoint as ocp
import pytest

from pir_jax.data import synthetic
from pir_jax.runtime import checkpoint_integrity

ROOT = pathlib.Path(__file__).parents[1]
NUM_STEPS = 600
NUM_KILLS = 30
GRACE = 10.0  # Seconds that a machine gives after its notice.

pytestmark = pytest.mark.slow


class Training:
  """One run directory, and the process that trains in it."""

  def __init__(self, data, cache, workdir):
    self.workdir = workdir
    self.log = workdir.with_name(f"{workdir.name}.log")
    switches = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    self._environment = {
      **{k: v for k, v in os.environ.items() if k not in switches},
      "PIR_JAX_CACHE": str(cache),
    }
    self._command = [
      *(sys.executable, "-u", "-m", "pir_jax.train"),
      "--config=tests/survival_experiment.py",
      f"--config.data.path={data}",
      f"--config.loop.num_steps={NUM_STEPS}",
    ]

  def start(self, *flags):
    with self.log.open("w") as log:
      return subprocess.Popen(
        [*self._command, f"--workdir={self.workdir}", *flags],
        cwd=ROOT,
        env=self._environment,
        stdout=log,
        stderr=subprocess.STDOUT,
      )

  def finish(self, *flags):
    """Trains to the end; what was said."""
    process = self.start(*flags)
    code = process.wait(timeout=600)
    return code, self.log.read_text()

  def wait_for(self, process, words, seconds=300):
    """Until the process says so; False where it ended before."""
    until = time.monotonic() + seconds
    while words not in self.log.read_text():
      if process.poll() is not None:
        return False
      assert time.monotonic() < until, self.log.read_text()
      time.sleep(0.02)
    return True

  def newest(self):
    """The step of the newest whole checkpoint; 0 where there is none."""
    step = checkpoint_integrity.newest_whole(self.workdir, read_only=True)
    return 0 if step == checkpoint_integrity.NONE else step

  def began_at(self):
    """The step from which the last process went on."""
    return int(re.search(r"from step (\d+)", self.log.read_text())[1])

  def last(self):
    """Every array of the last checkpoint, and the place in the data."""
    folder = self.workdir / "checkpoints" / str(NUM_STEPS)
    place = json.loads((folder / "data/iterator.json").read_text())
    return ocp.PyTreeCheckpointer().restore(folder / "state"), place


@pytest.fixture(scope="module")
def make(tmp_path_factory):
  """Trainings by name, on one data set and with one cache of programs."""
  folder = tmp_path_factory.mktemp("survival")
  synthetic.write_synthetic(folder / "data", num_frames=66)

  def training(name, cache="cache", workdir=None):
    workdir = workdir or folder / name
    return Training(folder / "data", folder / cache, workdir)

  return training


@pytest.fixture(scope="module")
def straight(make):
  """What a run that nothing happens to ends with."""
  training = make("straight")
  code, said = training.finish()
  assert code == 0, said
  return training.last()


def expect_the_same(training, straight):
  (state, place), (wanted, wanted_place) = training.last(), straight
  chex.assert_trees_all_equal(state, wanted)
  assert place == wanted_place


def test_killed_thirty_times_it_ends_bit_identical(make, straight):
  chance = random.Random(7)
  training = make("killed")
  halves, kills = 0, 0
  while kills < NUM_KILLS:
    before = training.newest() if kills else 0
    process = training.start()
    if chance.random() < 0.9:  # Else even before it has begun.
      assert training.wait_for(process, "from step"), training.log.read_text()
      assert training.began_at() == before
      # Up to the first step after a restart, or into the saves after it.
      if chance.random() < 0.9:
        training.wait_for(process, "compiled and done")
      time.sleep(chance.uniform(0, 1.5))
    else:
      time.sleep(chance.uniform(0, 4))
    if process.poll() is None:
      kills += 1
    process.kill()
    process.wait()
    folder = training.workdir / "checkpoints"
    halves += any(folder.glob("*.orbax-checkpoint-tmp*"))
    print(f"kill {kills}: {before} -> {training.newest()}, {halves} half saves")
  assert halves  # Some of the kills were in the midst of a save.
  code, said = training.finish()
  assert code == 0, said
  assert "damaged" not in said  # A save is whole or absent.
  expect_the_same(training, straight)


def test_preempted_it_saves_in_time_and_goes_on(make, straight):
  chance = random.Random(3)
  training = make("preempted")
  for _ in range(4):
    process = training.start()
    assert training.wait_for(process, "compiled and done")
    time.sleep(chance.uniform(0, 2))
    process.send_signal(signal.SIGTERM)
    then = time.monotonic()
    assert process.wait(timeout=GRACE) == 0
    print(f"ended {time.monotonic() - then:.2f} s after SIGTERM")
    said = training.log.read_text()
    step = int(re.search(r"stopped: step (\d+) is saved", said)[1])
    assert step == training.newest() > training.began_at()
  code, said = training.finish()
  assert code == 0, said
  assert training.began_at() == step
  expect_the_same(training, straight)


def test_preempted_while_compiling_it_ends_at_once(make):
  training = make("compiling", cache="empty")
  process = training.start()
  assert training.wait_for(process, "compiling ...")
  time.sleep(3)
  process.send_signal(signal.SIGTERM)
  # Nothing is to be saved; any code but 0 and 1 asks to be started again.
  assert process.wait(timeout=GRACE) == -signal.SIGTERM
  assert training.newest() == 0


def test_what_is_cut_short_costs_one_interval(make, straight):
  training = make("cut")
  process = training.start()
  training.wait_for(process, f"{NUM_STEPS // 3}/{NUM_STEPS}")
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=GRACE) == 0
  steps = checkpoint_integrity.steps(training.workdir)
  newest = training.workdir / "checkpoints" / str(steps[-1])
  largest = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  code, said = training.finish()
  assert code == 0, said
  assert f"checkpoint {steps[-1]} of {training.workdir} is damaged" in said
  assert training.began_at() == steps[-2]
  expect_the_same(training, straight)


def test_a_full_disk_loses_nothing(make, straight, tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(disk)]
  if os.getuid() or subprocess.run(mount, check=False).returncode:
    pytest.skip("no small disk: only root may mount one")
  try:
    # The log stays outside: the disk is the run's.
    training = make("full", workdir=disk / "run")
    training.log = tmp_path / "full.log"
    (disk / "filler").write_bytes(bytes(300 * 1024))
    code, said = training.finish()
    assert code == 1
    assert "No space left on device" in said and "Traceback" not in said
    kept = int(re.search(r"step (\d+) is kept", said)[1])
    assert training.newest() == kept
    room = ["mount", "-o", "remount,size=100m", str(disk)]
    subprocess.run(room, check=True)
    code, said = training.finish()
    assert code == 0, said
    assert training.began_at() == kept
    expect_the_same(training, straight)
  finally:
    subprocess.run(["umount", str(disk)], check=True)


def test_another_config_is_refused_by_name_or_begun_from(make):
  training = make("straight")
  before = sorted(training.workdir.rglob("*"))
  rate = "--config.stage.optim.learning_rate=0.0001"
  code, said = training.finish(rate, "--config.stage.model.width=64")
  assert code == 1
  assert "stage.model.width: 32 -> 64" in said
  assert "stage.optim.learning_rate: 0.001 -> 0.0001" in said
  assert sorted(training.workdir.rglob("*")) == before
  source = f"--resume_from={training.workdir}"
  longer = f"--config.loop.num_steps={NUM_STEPS + 3}"
  other = make("other")
  code, said = other.finish(rate, longer, source)
  assert code == 0, said
  assert other.began_at() == NUM_STEPS
  assert other.newest() == NUM_STEPS + 3
  wider = make("wider")
  code, said = wider.finish("--config.stage.model.width=64", source)
  assert code == 1 and "is of other networks" in said
