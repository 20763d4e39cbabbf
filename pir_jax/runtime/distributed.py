"""Many processes, one run: joined by flags, left when one of them dies.

Without flags nothing is done. `--distributed` asks jax who the others are:
Slurm (`srun`), Open MPI 4, a TPU slice. Where one process dies the others
cannot continue: they end at once or after HEARTBEAT_SECONDS, with DEAD_PEER
where Python is still running or by jax's SIGABRT, and all are to be started
again.
"""

import contextlib
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from pir_jax.types import InputError

# A process that was silent for so long counts as dead, and all others end. A
# process that compiles is not silent: another thread sends the heartbeats.
HEARTBEAT_SECONDS = 60
# Exit code that asks a launcher to start all processes again (sysexits.h:
# EX_TEMPFAIL).
DEAD_PEER = 75
# Hosts of a large job do not start at once.
JOIN_SECONDS = 300

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "One of several processes that Slurm, Open MPI 4 or a TPU slice started.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "HOST:PORT of process 0, where several processes train together without "
  "such a launcher.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Processes of the run; with --coordinator."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Index of this process, from 0; with --coordinator."
)


def join(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  detect: bool = False,
) -> bool:
  """Joins the other processes of this run, if there are any.

  Must come before anything asks jax for its devices.

  Args:
    coordinator: HOST:PORT of process 0, reachable from all others.
    num_processes: of the whole run.
    process_id: of this process, from 0.
    detect: asks jax for the three above.

  Returns:
    Whether there are several processes.

  Raises:
    InputError: wrong flags, or the others do not come.
  """
  args = (coordinator, num_processes, process_id)
  if any(value is not None for value in args):
    _check(*args)
    if num_processes == 1:
      return False
    options = dict(
      coordinator_address=coordinator,
      num_processes=num_processes,
      process_id=process_id,
      # Otherwise a launcher would still choose one device of this host.
      cluster_detection_method="deactivate",
    )
  elif detect:
    options = {}
  else:
    return False
  try:
    jax.distributed.initialize(
      **options,
      initialization_timeout=JOIN_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    reason = str(error).splitlines()[0].rstrip(".")
    if coordinator is None:
      raise InputError(
        f"--distributed: jax detects no cluster here ({reason}): start with "
        "srun, or set --coordinator, --num_processes and --process_id."
      ) from error
    raise InputError(
      f"--coordinator={coordinator}: the other processes did not join within "
      f"{JOIN_SECONDS} s ({reason}): start all of them, and make that port "
      "reachable."
    ) from error
  return jax.process_count() > 1


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """Joins the processes that the flags name, and leaves them at the end.

  Alone nothing changes. With others, an error of jax's own is taken for a lost
  connection, and ends this process with DEAD_PEER.
  """
  several = join(
    _COORDINATOR.value,
    _NUM_PROCESSES.value,
    _PROCESS_ID.value,
    detect=_DISTRIBUTED.value,
  )
  try:
    yield
  except jax.errors.JaxRuntimeError:
    if not several:
      raise
    traceback.print_exc()
    print(
      "another process of this run died or cannot be reached: start all of "
      "them again to continue from the newest checkpoint.",
      file=sys.stderr,
      flush=True,
    )
    # Not sys.exit: jax would wait at exit for the processes that died.
    os._exit(DEAD_PEER)
  if several:
    jax.distributed.shutdown()


def check_shared(path: pathlib.Path) -> None:
  """Checks that every process sees a file that process 0 has written.

  Raises:
    InputError: one does not; raised on all of them.
  """
  if jax.process_count() == 1:
    return
  multihost_utils.sync_global_devices(str(path))
  seen = multihost_utils.process_allgather(np.bool_(path.exists()))
  if not seen.all():
    raise InputError(
      f"{path} is not seen by process {int(np.argmin(seen))}: put --workdir on "
      "storage that all hosts share, under the same name."
    )


def _check(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  if None in (coordinator, num_processes, process_id):
    raise InputError(
      "--coordinator, --num_processes and --process_id go together: set all "
      "three, or none of them."
    )
  if not re.fullmatch(r"\S+:\d{1,5}", coordinator):
    raise InputError(
      f"--coordinator={coordinator} must be HOST:PORT of process 0."
    )
  if not 0 <= process_id < num_processes:
    raise InputError(
      f"--process_id={process_id} must be one of 0 to --num_processes="
      f"{num_processes} - 1."
    )
