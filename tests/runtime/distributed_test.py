"""Who is in a cluster and who is not; two processes are in train_cluster_test.

No test here joins anything but one that nobody answers.
"""

import os

import jax
import pytest
from absl import flags

from pir_jax.runtime import distributed
from pir_jax.types import InputError

SLURM = dict(
  SLURM_JOB_ID="7",
  SLURM_STEP_NODELIST="a[1-2]",
  SLURM_NTASKS="4",
  SLURM_PROCID="0",
  SLURM_LOCALID="0",
)
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


def test_without_flags_nothing_is_joined(env, joins):
  env(**SLURM)
  assert not distributed.join()
  assert not joins


def test_jax_is_asked_who_the_others_are(env, joins):
  env(**SLURM)
  distributed.join(detect=True)
  (options,) = joins
  assert "coordinator_address" not in options
  assert options["heartbeat_timeout_seconds"] == distributed.HEARTBEAT_SECONDS


def test_where_jax_detects_nothing_a_sentence_names_the_flags(env):
  with pytest.raises(InputError, match="--distributed: .*set --coordinator"):
    distributed.join(detect=True)


def test_a_coordinator_comes_before_detection(env, joins):
  env(**SLURM)
  distributed.join("host:1234", 2, 1, detect=True)
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


def test_what_jax_cannot_join_is_one_sentence(env, monkeypatch):
  def refuse(**unused):
    raise RuntimeError("DEADLINE_EXCEEDED: nobody\nand a long story")

  monkeypatch.setattr(jax.distributed, "initialize", refuse)
  with pytest.raises(InputError, match="not join within 300 s") as caught:
    distributed.join("nowhere:1", 2, 1)
  assert "\n" not in str(caught.value)


def test_an_error_of_one_process_alone_stays_what_it_is(monkeypatch):
  monkeypatch.setattr(distributed, "join", lambda *args, **options: False)
  flags.FLAGS(["train"])
  with pytest.raises(jax.errors.JaxRuntimeError), distributed.joined():
    raise jax.errors.JaxRuntimeError("INTERNAL: its own")
