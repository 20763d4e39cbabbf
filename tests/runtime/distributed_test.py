"""Who is in a cluster and who is not; two processes are in tests/cluster_test.

No test here joins anything but one that nobody answers.
"""

import os
import pathlib

import jax
import pytest

from pir_jax.runtime import distributed, finish
from pir_jax.types import InputError

LAUNCHED = ("SLURM_", "OMPI_", "TPU_", "MEGASCALE_")


@pytest.fixture
def env(monkeypatch):
  """An environment without any launcher; set what one would set."""
  for name in list(os.environ):
    if name.startswith(LAUNCHED):
      monkeypatch.delenv(name)
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")

  def fill(**values):
    for name, value in values.items():
      monkeypatch.setenv(name, value)

  return fill


@pytest.fixture
def joins(monkeypatch):
  """What jax was asked to join."""
  asked = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda **options: asked.append(options)
  )
  return asked


def slurm(tasks):
  return dict(
    SLURM_JOB_ID="7",
    SLURM_STEP_NODELIST="a[1-2]",
    SLURM_NTASKS=str(tasks),
    SLURM_PROCID="0",
    SLURM_LOCALID="0",
  )


@pytest.mark.parametrize(
  "found",
  [
    {},
    slurm(1),
    # An interactive shell within a larger allocation.
    slurm(4) | dict(SLURM_STEP_NUM_TASKS="1"),
    dict(SLURM_JOB_ID="7", SLURM_NTASKS="4"),  # sbatch without srun
    dict(OMPI_COMM_WORLD_SIZE="1"),
    dict(TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0"),
    dict(KUBERNETES_SERVICE_HOST="10.0.0.1"),  # a notebook in a pod
  ],
)
def test_one_process_is_no_cluster(env, joins, found):
  env(**found)
  assert not distributed.join()
  assert not joins


@pytest.mark.parametrize(
  "found",
  [
    slurm(4),
    dict(
      OMPI_COMM_WORLD_SIZE="2", OMPI_MCA_orte_hnp_uri="1.0;tcp://10.0.0.1:1"
    ),
    dict(TPU_WORKER_HOSTNAMES="a,b"),
    dict(TPU_PROCESS_ADDRESSES="a:1,b:1"),
    dict(TPU_WORKER_HOSTNAMES="a", MEGASCALE_NUM_SLICES="2"),
  ],
)
def test_a_launcher_of_several_is_asked_by_jax(env, joins, found):
  env(**found)
  distributed.join()
  (options,) = joins
  assert "coordinator_address" not in options
  assert options["heartbeat_timeout_seconds"] == distributed.HEARTBEAT_SECONDS


def test_a_cloud_tpu_vm_tells_its_hosts(env, joins, monkeypatch):
  monkeypatch.delenv("TPU_SKIP_MDS_QUERY")
  monkeypatch.setattr(
    distributed.importlib.util, "find_spec", lambda name: True
  )
  for hosts, several in (("", 0), ("a", 0), ("x:0:10.0.0.1,y:1:10.0.0.2", 1)):
    monkeypatch.setattr(
      distributed, "_metadata_hosts", lambda hosts=hosts: hosts
    )
    distributed.join()
    assert len(joins) == several


def test_flags_come_before_launchers(env, joins):
  env(**slurm(4))
  distributed.join("host:1234", 2, 1)
  (options,) = joins
  assert options["coordinator_address"] == "host:1234"
  assert (options["num_processes"], options["process_id"]) == (2, 1)
  # All devices of the host, not the one of a Slurm task.
  assert options["cluster_detection_method"] == "deactivate"
  assert not distributed.join("host:1234", 1, 0)
  assert len(joins) == 1


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (("host:1234", None, None), "go together"),
    ((None, 2, 0), "go together"),
    (("host", 2, 0), "must be HOST:PORT"),
    (("host:port", 2, 0), "must be HOST:PORT"),
    (("host:1234", 2, 2), "must be one of 0 to"),
    (("host:1234", 2, -1), "must be one of 0 to"),
  ],
)
def test_wrong_flags_are_one_sentence(env, joins, given, said):
  with pytest.raises(InputError, match=said) as caught:
    distributed.join(*given)
  assert "\n" not in str(caught.value)
  assert not joins


def test_open_mpi_5_is_told_what_to_say(env):
  env(OMPI_COMM_WORLD_SIZE="2")
  with pytest.raises(InputError, match="OMPI_COMM_WORLD_RANK"):
    distributed.join()


def test_what_jax_cannot_join_is_one_sentence(env, monkeypatch):
  def refuse(**unused):
    raise RuntimeError("DEADLINE_EXCEEDED: nobody\nand a long story")

  monkeypatch.setattr(jax.distributed, "initialize", refuse)
  with pytest.raises(InputError, match="not found within 300 s") as caught:
    distributed.join("nowhere:1", 2, 1)
  assert "\n" not in str(caught.value)


def test_an_error_of_one_process_alone_stays_what_it_is(env):
  with (
    pytest.raises(jax.errors.JaxRuntimeError),
    distributed.joined("host:1", 1, 0),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: its own")


def test_only_a_run_that_ended_is_finished(tmp_path):
  finish.mark(tmp_path, 7)
  assert (tmp_path / finish.FINISHED).read_text() == "7\n"
  finish.clear(tmp_path)
  finish.clear(tmp_path)
  assert not list(pathlib.Path(tmp_path).iterdir())
