"""Many processes, one run: joined where a launcher started several.

Without flags and without a launcher nothing is done and nothing is waited for.
Who is asked, in this order: the flags; Slurm (`srun`); Open MPI; the TPU's own
list of hosts (GKE, multislice), or the metadata of a Cloud TPU VM. A launcher
that started one process only is no cluster.

Where one process dies the others cannot go on: they end with DEAD_PEER, at
once or after HEARTBEAT_SECONDS, and all are to be started again.
"""

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import re
import signal
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from pir_jax.types import InputError

# After so long without a sign of life a process counts as dead, and all others
# end. Compiling is no silence: another thread speaks.
HEARTBEAT_SECONDS = 60
# Exit code that asks a launcher to start all processes again (sysexits.h:
# EX_TEMPFAIL).
DEAD_PEER = 75
# Hosts of a large job do not start at once.
JOIN_SECONDS = 300

_SLURM = (
  "SLURM_JOB_ID",
  "SLURM_STEP_NODELIST",
  "SLURM_NTASKS",
  "SLURM_PROCID",
  "SLURM_LOCALID",
)
# What jax says where a message did not arrive: no mistake of this process.
_LOST = re.compile("gloo|coordination|heartbeat|connection", re.IGNORECASE)
_METADATA = (
  "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
  "worker-network-endpoints"
)


_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "HOST:PORT of process 0, where several processes train together and no "
  "launcher says so (Slurm, Open MPI and TPU pods do).",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Processes of the run; with --coordinator."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "This one's number, from 0; with --coordinator."
)


def join(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  seconds: int = JOIN_SECONDS,
) -> bool:
  """Joins the other processes of this run, if there are any.

  Must come before anything asks jax for its devices.

  Args:
    coordinator: HOST:PORT of process 0, which all others can reach.
    num_processes: of the whole run.
    process_id: of this process, from 0.
    seconds: to wait for the others.

  Returns:
    Whether there are several processes.

  Raises:
    InputError: flags that do not go together, or the others do not come.
  """
  given = (coordinator, num_processes, process_id)
  if all(value is None for value in given):
    launcher = _launcher()
    if not launcher:
      return False
    options = {}
  else:
    _check(*given)
    if num_processes == 1:
      return False
    launcher = f"--coordinator={coordinator}"
    options = dict(
      coordinator_address=coordinator,
      num_processes=num_processes,
      process_id=process_id,
      # Else a launcher would still choose one device of this host.
      cluster_detection_method="deactivate",
    )
  try:
    jax.distributed.initialize(
      **options,
      initialization_timeout=seconds,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    raise InputError(
      f"{launcher}: the other processes were not found within {seconds} s "
      f"({str(error).splitlines()[0]}): start all of them, and let the first "
      "one's host and port be reachable."
    ) from error
  if jax.process_count() == 1:
    return False
  _listen_for_aborts()
  return True


@contextlib.contextmanager
def joined(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> Iterator[None]:
  """A run among all its processes, see `join`; at its end they part together.

  What is not given is taken from the flags.

  Without others nothing is different. With others, what jax cannot do is laid
  to one of them, and this process ends with DEAD_PEER.
  """
  several = join(
    coordinator or _COORDINATOR.value,
    _NUM_PROCESSES.value if num_processes is None else num_processes,
    _PROCESS_ID.value if process_id is None else process_id,
  )
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not several:
      raise
    if not _LOST.search(str(error)):
      traceback.print_exc()
    _end(str(error).splitlines()[0])
  if several:
    jax.distributed.shutdown()


def check_shared(path: pathlib.Path) -> None:
  """Every process must see a file that process 0 has written.

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


def _end(cause: str) -> None:
  print(
    "another process of this run died, or cannot be reached: start all of them "
    f"again, they go on from what was saved ({cause}).",
    file=sys.stderr,
    flush=True,
  )
  # Not sys.exit: at a usual end jax would wait for those who are no more.
  os._exit(DEAD_PEER)


def _aborted(*unused) -> None:
  _end("jax's own words are above")


# Kept: C will call it.
_ABORTED = ctypes.CFUNCTYPE(None, ctypes.c_int)(_aborted)


def _listen_for_aborts() -> None:
  """Has the last word where jax aborts the process because another one died.

  Not `signal.signal`: its handlers run in the main thread, which waits for the
  dead.
  """
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
  libc.signal(signal.SIGABRT, ctypes.cast(_ABORTED, ctypes.c_void_p))


def _check(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  if None in (coordinator, num_processes, process_id):
    raise InputError(
      "--coordinator, --num_processes and --process_id go together: give all "
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


def _launcher() -> str:
  """Who started several processes, as jax will find it too; "" for none."""
  env = os.environ
  if all(name in env for name in _SLURM):
    tasks = int(env.get("SLURM_STEP_NUM_TASKS") or env["SLURM_NTASKS"])
    return "Slurm" if tasks > 1 else ""
  size = env.get("OMPI_COMM_WORLD_SIZE")
  if size is not None:
    if int(size) > 1 and "OMPI_MCA_orte_hnp_uri" not in env:
      # Open MPI 5 and later.
      raise InputError(
        f"Open MPI started {size} processes and does not say where the first "
        "one is: say --coordinator=HOST:PORT --num_processes="
        "$OMPI_COMM_WORLD_SIZE --process_id=$OMPI_COMM_WORLD_RANK."
      )
    return "Open MPI" if int(size) > 1 else ""
  return "the TPU's list of hosts" if _num_tpu_hosts() > 1 else ""


def _num_tpu_hosts() -> int:
  """Hosts of the TPU slices this process is part of; 1 without any."""
  env = os.environ
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  if not hosts:
    # jax sets this one where it sees no TPU chip.
    if "TPU_SKIP_MDS_QUERY" in env or not importlib.util.find_spec("libtpu"):
      return 1
    hosts = _metadata_hosts()
  return len(hosts.split(",")) * int(env.get("MEGASCALE_NUM_SLICES") or 1)


def _metadata_hosts() -> str:
  request = urllib.request.Request(
    _METADATA, headers={"Metadata-Flavor": "Google"}
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as answer:
      return answer.read().decode()
  except (urllib.error.URLError, TimeoutError):  # No Cloud TPU VM.
    return ""
