"""Two real processes on one machine learn what one learns, and survive."""

import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboardX.proto import event_pb2

from pir_jax.data import synthetic
from pir_jax.runs.experiment import Experiment, mesh_for
from pir_jax.runtime import distributed, loop
from pir_jax.stages import triplane
from pir_jax.types import InputError

ROOT = pathlib.Path(__file__).parents[1]
WORKER = ROOT / "tests" / "cluster_worker.py"
SECONDS = 400  # For what takes ten on an idle machine.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  path = tmp_path_factory.mktemp("data") / "me"
  synthetic.write_synthetic(path, num_frames=55, side=32)
  return path


class Run:
  """Processes that train together in one directory."""

  def __init__(self, workdir, data, count, *options, devices=1):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    env = os.environ | {
      "PYTHONPATH": str(ROOT),
      "PIR_JAX_CACHE": str(data.parent / "cache"),
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "XLA_FLAGS": "",
    }
    self.workdir, self.processes, self.logs = workdir, [], []
    workdir.mkdir(parents=True, exist_ok=True)
    for i in range(count):
      command = [sys.executable, WORKER, f"--config={WORKER}"]
      command += [f"--config.data.path={data}", f"--workdir={workdir}"]
      if count > 1:
        command += [f"--coordinator=127.0.0.1:{port}"]
        command += [f"--num_processes={count}", f"--process_id={i}"]
      self.logs.append(workdir / f"log_{i}_{port}")
      with self.logs[-1].open("w") as log:
        self.processes.append(
          subprocess.Popen(
            [*map(str, command), *options], env=env, stdout=log, stderr=log
          )
        )

  def wait_for(self, path):
    """Until the run has written something, or has ended."""
    end = time.monotonic() + SECONDS
    while not (self.workdir / path).exists():
      codes = [process.poll() for process in self.processes]
      assert codes.count(None) == len(codes), self.said()
      assert time.monotonic() < end, self.said()
      time.sleep(0.02)

  def codes(self, seconds=SECONDS):
    """Exit codes, as soon as all have ended."""
    try:
      return [process.wait(seconds) for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()

  def said(self):
    return "\n".join(log.read_text() for log in self.logs)


def losses(workdir):
  """{step: loss}, as TensorBoard has them."""
  found = {}
  for path in sorted((workdir / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:  # Records: length, its checksum, bytes, their checksum.
      end = 12 + struct.unpack("<Q", data[:8])[0]
      event = event_pb2.Event.FromString(data[12:end])
      data = data[end + 4 :]
      for value in event.summary.value:
        if value.tag == "loss":
          found[event.step] = value.simple_value
  return found


def last_state(workdir):
  """All arrays of the newest checkpoint, by their paths."""
  steps = (workdir / "checkpoints").glob("[0-9]*")
  path = max(steps, key=lambda path: int(path.name)) / "state"
  path = path.resolve()
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.metadata(path)
    tree = getattr(tree, "item_metadata", tree)
    tree = getattr(tree, "tree", tree)
    # As numpy: its devices are those of other processes.
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    found = reader.restore(path, restore_args=how)
  flat = {
    jax.tree_util.keystr(name, simple=True, separator="/"): np.asarray(value)
    for name, value in jax.tree_util.tree_leaves_with_path(found)
  }
  assert flat
  return flat


def same_bits(one, other):
  one, other = last_state(one), last_state(other)
  assert one.keys() == other.keys()
  for name, value in one.items():
    np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.fixture(scope="module")
def together(data):
  """Two processes, not interrupted."""
  run = Run(data.parent / "together", data, 2)
  assert run.codes() == [0, 0], run.said()
  assert (run.workdir / "finished").read_text() == "60\n"
  return run.workdir


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(data, together, tmp_path):
  one = Run(tmp_path / "one", data, 1)
  assert one.codes() == [0], one.said()
  split = Run(tmp_path / "split", data, 2, "--config.sharding.fsdp=2")
  assert split.codes() == [0, 0], split.said()
  assert "on each of 2 devices" in split.said()
  want = losses(one.workdir)
  assert sorted(want) == list(range(1, 61))
  for workdir in (together, split.workdir):
    got = losses(workdir)
    np.testing.assert_allclose(
      # Sums in another order, which 60 steps of Adam carry on.
      [got[step] for step in sorted(want)],
      [want[step] for step in sorted(want)],
      rtol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_both_go_on(
  data, together, tmp_path, victim
):
  run = Run(tmp_path / "run", data, 2)
  run.wait_for("checkpoints/20")
  run.processes[victim].kill()
  codes = run.codes(distributed.HEARTBEAT_SECONDS + 60)
  assert codes[victim] == -signal.SIGKILL
  # jax may abort before Python gets the error; both ask to be started again.
  assert codes[1 - victim] in (distributed.DEAD_PEER, -signal.SIGABRT)
  if codes[1 - victim] == distributed.DEAD_PEER:
    assert "start all of them again" in run.logs[1 - victim].read_text()
  assert not (run.workdir / "finished").exists()
  again = Run(run.workdir, data, 2)
  assert again.codes() == [0, 0], again.said()
  same_bits(together, run.workdir)


@pytest.mark.slow
def test_sigterm_to_one_saves_on_both(data, together, tmp_path):
  run = Run(tmp_path / "run", data, 2)
  run.wait_for("checkpoints/10")
  run.processes[1].terminate()
  assert run.codes() == [0, 0], run.said()
  assert not (run.workdir / "finished").exists()
  again = Run(run.workdir, data, 2)
  assert again.codes() == [0, 0], again.said()
  assert (run.workdir / "finished").exists()
  same_bits(together, run.workdir)


@pytest.mark.slow
def test_a_run_moves_between_numbers_of_processes(data, together, tmp_path):
  workdir, want = tmp_path / "run", losses(together)
  for steps, count, devices, fsdp in (
    (10, 2, 1, 2),
    (20, 1, 8, 4),
    (30, 1, 1, 1),
    (40, 2, 2, 2),
  ):
    run = Run(
      workdir,
      data,
      count,
      f"--config.loop.num_steps={steps}",
      f"--config.sharding.fsdp={fsdp}",
      devices=devices,
    )
    assert run.codes() == [0] * count, run.said()
  got = losses(workdir)
  assert sorted(got) == list(range(1, 41))
  np.testing.assert_allclose(
    [got[step] for step in sorted(got)],
    [want[step] for step in sorted(got)],
    rtol=1e-5,
  )


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_by_all(data, tmp_path):
  run = Run(tmp_path / "run", data, 2, "--config.data.batch_size=3")
  assert run.codes() == [1, 1]
  for log in run.logs:
    assert "must be a multiple of the 2 devices of the 2" in log.read_text()


def test_several_processes_must_share_the_batch_out_evenly():
  experiment = Experiment(
    stage=triplane.Config(), loop=loop.Config(num_steps=1)
  )
  experiment.data.batch_size = 6
  devices = [types.SimpleNamespace(process_index=i // 2) for i in range(4)]
  with pytest.raises(InputError, match="batch_size=8, or start fewer") as error:
    mesh_for(experiment, devices)
  assert "the 4 devices of the 2 processes" in str(error.value)
  # Alone, a process leaves some devices out.
  assert mesh_for(experiment).size == 2
  experiment.sharding.fsdp = 3
  with pytest.raises(InputError, match="sharding.fsdp=3 must divide"):
    mesh_for(experiment)
