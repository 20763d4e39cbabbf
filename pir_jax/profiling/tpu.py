"""Compiles a training step for TPUs that are not here, and estimates its time.

The sharded step that `train` would run is compiled by the TPU's own compiler,
which needs no TPU. The compiler reports the memory; the time is estimated by
the model in profiling/roofline.py.
"""

import dataclasses
import importlib.util
import os
import time
from typing import NamedTuple

import jax
from jax.experimental import topologies

from pir_jax.models import triplane_generator
from pir_jax.profiling import abstract_stage, hlo, roofline
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import flops, memory, sharding
from pir_jax.stages import base
from pir_jax.types import InputError

# For a compiler that no device answers: do not look for one, say little, and
# let several processes compile side by side.
_QUIET = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_MIN_LOG_LEVEL": "3",
  "TPU_STDERR_LOG_LEVEL": "3",
}
# Levels of the TPU's compiler; "own" is the one that `train` gets, at which two
# cores take a quarter of an hour over a step.
EFFORTS = {
  "own": None,
  "O0": {"xla_optimization_level": "EFFORT_O0"},
  "O1": {"xla_optimization_level": "EFFORT_O1"},
}


class Forecast(NamedTuple):
  """A training step on a slice.

  Attributes:
    stage: its name.
    where: the slice.
    batch: examples of a step, over all chips.
    footprint: of the step that takes the most memory; None: none fits.
    work: of a step on each chip, with its share of what is done now and then;
      None where the program cannot be read.
    seconds: of tracing and compiling.
    refusal: the compiler's, where it does not fit.
  """

  stage: str
  where: roofline.Slice
  batch: int
  footprint: memory.Footprint | None
  work: roofline.Work | None
  seconds: float
  refusal: str = ""

  @property
  def fits(self) -> bool:
    """Returns whether the step fits, as the compiler reports."""
    return self.footprint is not None


def find_devices(topology: str) -> list[jax.Device]:
  """Returns the chips of a slice, which need not exist.

  Args:
    topology: chip and sides, such as v5e:16x16.

  Raises:
    InputError: no compiler for TPUs, or it does not know the slice.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise InputError(
      "the TPU's compiler is not installed: `pip install libtpu`, or pir_jax "
      "with its extra tpu-aot."
    )
  for name, value in _QUIET.items():
    os.environ.setdefault(name, value)
  try:
    slices = topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    )
  except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
    reason = str(error).strip().splitlines()[0]
    raise InputError(
      f"{topology!r} is no slice of TPUs ({reason}): write chip and sides, "
      "such as v5e:4x4, v6e:16x16 or v5p:8x8x8."
    ) from error
  return list(slices.devices)


def forecast(
  experiment: Experiment,
  renderer: triplane_generator.Config,
  topology: str,
  per_device: int | None = None,
  *,
  effort: str = "O1",
) -> Forecast:
  """Compiles an experiment's training step for a slice.

  Args:
    experiment: whose training step is compiled.
    renderer: of the tri-plane that the inpainting stage uses.
    topology: see `find_devices`.
    per_device: examples on each chip; None: the experiment's own batch over all
      of them.
    effort: of the compiler, one of EFFORTS.

  Raises:
    InputError: there is no such slice, or sizes do not fit each other.
  """
  devices = find_devices(topology)
  where = roofline.slice_of(topology, devices[0].device_kind)
  if per_device is not None:
    data = dataclasses.replace(
      experiment.data, batch_size=per_device * len(devices)
    )
    experiment = dataclasses.replace(experiment, data=data)
  begin = time.monotonic()
  try:
    mesh = sharding.make_mesh(experiment.sharding, devices)
    sharding.local_rows(mesh, experiment.data.batch_size)  # Divides evenly?
    stage = abstract_stage.make_stage(
      experiment, renderer, mesh, shapes_only=True
    )
    stage.split_by(experiment.sharding)
    footprint, work = _compile(experiment, stage, EFFORTS[effort])
    refusal = ""
  except memory.TooLarge as error:
    footprint = work = None
    refusal = error.reason
  return Forecast(
    stage.name,
    where,
    experiment.data.batch_size,
    footprint,
    work,
    time.monotonic() - begin,
    refusal,
  )


def _compile(
  experiment: Experiment,
  stage: base.Stage,
  options: dict[str, str] | None,
) -> tuple[memory.Footprint, roofline.Work | None]:
  """Returns the largest step's footprint and the mean work of all steps."""
  args = abstract_stage.arguments(experiment, stage)
  work = roofline.Work(0.0, hlo.Traffic(0.0, dict.fromkeys(hlo.COLLECTIVES, 0)))
  footprints = []
  for step in stage.compiled:
    traced = step.trace(*args)
    compiled, footprint = memory.compile_lowered(traced.lower(), options)
    footprints.append(footprint)
    try:
      text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # libtpu writes what jaxlib cannot read.
      work = None
    if work is None:
      continue
    step_work = roofline.Work(
      flops.of_jaxpr(traced.jaxpr.jaxpr) / stage.mesh.size, hlo.traffic(text)
    )
    work = work.plus(step_work, 1 / step.every)
  return max(footprints, key=lambda f: f.peak + f.code), work


HEADER = (
  f"{'':12}{'':12}{'':>7}{'memory of a chip, GiB':>36}{'':>9}"
  f"{'a step on each chip':>31}{'estimated':>31}\n"
  f"{'stage':12}{'slice':12}{'batch':>7}{'state':>9}{'temp':>8}{'code':>7}"
  f"{'peak':>7}{'of':>5}{'fits':>9}{'TFLOP':>9}{'HBM GB':>9}{'links GB':>10}"
  f"{'ms':>10}{'bound':>9}{'scaling':>9}{'compile s':>11}"
)


def row(made: Forecast) -> str:
  """Formats a forecast as a line below HEADER.

  State: arguments of the step. Links: bytes of the arrays in its collectives.
  Bound: what the estimate is made of most.
  """
  chip = made.where.chip
  start = f"{made.stage:12}{made.where.name:12}{made.batch:7d}"
  total = f"{chip.hbm_bytes / 2**30:5.0f}"
  if not made.fits:
    return f"{start}{'':31}{total}{'no':>9}  {made.refusal}"
  f = made.footprint
  sizes = (f.arguments, f.temporaries, f.code, f.peak + f.code)
  widths = (9, 8, 7, 7)
  start += "".join(
    f"{size / 2**30:{width}.2f}"
    for size, width in zip(sizes, widths, strict=True)
  )
  start += f"{total}{'yes':>9}"
  if made.work is None:
    return start + "  no estimate: jaxlib cannot read the compiled program"
  estimate = roofline.estimate(made.work, made.where)
  parts = estimate._asdict()
  exchanged = sum(made.work.traffic.collectives.values())
  return (
    start
    + f"{made.work.flops / 1e12:9.2f}{made.work.traffic.memory / 1e9:9.1f}"
    + f"{exchanged / 1e9:10.2f}{1e3 * estimate.seconds:10.1f}"
    + f"{max(parts, key=parts.get):>9}{estimate.efficiency:9.2f}"
    + f"{made.seconds:11.0f}"
  )
