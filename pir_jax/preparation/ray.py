"""Runs the tasks of a batch on a Ray cluster (extra `ray`).

The same process as on one machine does each clip, so the bytes are the same. A
clip that kills its process is a failure of the clip; a clip whose node or whose
Ray worker dies is done again elsewhere. Videos and the data set must be where
every node sees them, and pir_jax must be installed there.
"""

import socket
from collections.abc import Iterator, Sequence

from pir_jax.preparation import batch_worker
from pir_jax.preparation.batch import Outcome, Runner, Task
from pir_jax.types import InputError

MAX_RETRIES = 5
# Tasks that are handed over ahead of the ones that run, for each core.
_AHEAD = 4


def run(address: str) -> Runner:
  """Returns a runner that does requests on a cluster.

  Args:
    address: of the cluster: host:port, ray://host:port, or "auto" for the one
      that this machine belongs to.

  Raises:
    InputError: Ray is not installed, or there is no cluster.
  """
  try:
    import ray
  except ImportError as error:
    raise InputError("--ray needs Ray: pip install 'pir_jax[ray]'.") from error

  def run_on_cluster(
    requests: Sequence[tuple[Task, dict]],
  ) -> Iterator[Outcome]:
    mine = not ray.is_initialized()
    if mine:
      _check_answers(address)
      try:
        ray.init(address=address, log_to_driver=False)
      except (ConnectionError, ValueError) as error:
        raise InputError(
          f"no Ray cluster answers at {address} ({error}): check --ray."
        ) from error
    work = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_work)
    ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, running = list(reversed(requests)), {}
    try:
      while waiting or running:
        while waiting and len(running) < ahead:
          task, request = waiting.pop()
          running[work.remote(request)] = task
        ready, _ = ray.wait(list(running))
        for each in ready:
          yield Outcome(running.pop(each), _result(ray, each))
    finally:
      if mine:
        ray.shutdown()

  return run_on_cluster


def _check_answers(address: str) -> None:
  """Raises InputError where nothing listens; Ray itself waits for minutes."""
  host, _, port = address.rpartition("//")[2].rpartition(":")
  if not host or not port.isdigit():
    return  # "auto" and the like: Ray knows at once.
  try:
    socket.create_connection((host, int(port)), timeout=10).close()
  except OSError as error:
    raise InputError(
      f"no Ray cluster answers at {address} ({error.strerror or error}): check"
      " --ray."
    ) from error


def _result(ray, reference) -> batch_worker.Answer:
  """Returns the answer, or why there is none."""
  try:
    return batch_worker.Answer(*ray.get(reference))
  except ray.exceptions.RayError as error:
    cause = str(error).strip().split("\n")[0]
    return batch_worker.Answer(None, f"Ray gave it up: {cause}")


def _work(request: dict) -> tuple:
  """Does one request, in a process of its own on some node."""
  own = batch_worker.Worker()
  try:
    return tuple(own.ask(request))
  finally:
    own.close()
