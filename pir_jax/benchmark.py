"""How long a network takes here: `python -m pir_jax.benchmark triplane`.

Each part of the way apart, then the whole; with random weights, on which the
time does not depend. Needs neither data nor published weights.
"""

import dataclasses
import os

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax import runs, workload
from pir_jax.models import generator
from pir_jax.runtime import command, loop, memory
from pir_jax.stages import triplane
from pir_jax.types import InputError

TOPICS = ("triplane",)
_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file whose sizes are meant, such as "
  "experiments/triplane.py:demo; the paper's where none is given.",
)
_BATCH = flags.DEFINE_integer("batch", 1, "Frames at once.", 1)
_DTYPE = flags.DEFINE_enum(
  "dtype", None, ["float32", "bfloat16"], "Of the convolutions."
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "The median is printed.", 1)
_TRAINING = flags.DEFINE_boolean(
  "training", False, "Times gradients and a whole training step as well."
)
_PEAK = flags.DEFINE_float(
  "peak_tflops", None, "Of the device at this dtype: adds the share reached.", 0
)

# Headings, and how wide their columns are.
_COLUMNS = (
  ("median ms", 12),
  ("least ms", 11),
  ("GFLOP", 12),
  ("by XLA", 12),
  ("GFLOP/s", 10),
  ("peak memory", 13),
  ("compile s", 11),
)
_NOTES = """\
GFLOP: of the algorithm as published, two for a product and its sum; a gradient
counts as two forward passes; activations and low-passes are left out. GFLOP/s:
of these. by XLA: what it counts in our program as written, the body of a loop
once; convolutions by tiles are fewer. Memory: arguments, outputs, temporaries.
"""


def _experiment() -> runs.Experiment:
  experiment = _CONFIG.value
  if not flags.FLAGS["config"].present:
    # Nothing of the loop is used but that its length shapes a schedule.
    experiment = runs.Experiment(
      stage=triplane.Config(), loop=loop.Config(num_steps=1000)
    )
  if not isinstance(experiment, runs.Experiment) or not isinstance(
    experiment.stage, triplane.Config
  ):
    raise InputError(
      f"{flags.FLAGS['config'].config_filename} is no tri-plane's experiment: "
      "say --config=experiments/triplane.py, or another file like it."
    )
  stage, batch = experiment.stage, _BATCH.value
  model = dataclasses.replace(
    stage.model, dtype=_DTYPE.value or stage.model.dtype
  )
  return dataclasses.replace(
    experiment,
    stage=dataclasses.replace(stage, model=model),
    data=dataclasses.replace(
      experiment.data, batch_size=batch, resolution=model.resolution
    ),
  )


def _title(model: generator.Config) -> str:
  device = jax.devices()[0]
  cores = os.cpu_count()
  usable = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
  )
  return (
    f"triplane on {device.device_kind} ({device.platform}), {usable} of "
    f"{cores} CPU cores, jax {jax.__version__}, {model.dtype}, batch of "
    f"{_BATCH.value}, {_REPEATS.value} repeats"
  )


def _line(row: workload.Row, width: int) -> str:
  timing, program = row.timing, row.program
  rate = row.gflop / timing.median if row.gflop else None
  written = program.written_flops
  cells = [
    f"{1e3 * timing.median:.2f}",
    f"{1e3 * timing.least:.2f}",
    f"{row.gflop:.4g}" if row.gflop else "-",
    f"{written / 1e9:.4g}" if written else "-",
    f"{rate:.4g}" if rate else "-",
    memory.readable(program.footprint.peak),
    f"{program.footprint.seconds:.1f}",
  ]
  text = "".join(
    f"{cell:>{size}}" for cell, (_, size) in zip(cells, _COLUMNS, strict=True)
  )
  if _PEAK.value:
    share = f"{rate / _PEAK.value / 10:.2f}" if rate else "-"
    text += f"{share:>11}"
  return f"{row.name:{width}}{text}"


def main(topic: str) -> None:
  """The command."""
  del topic  # There is one.
  experiment = _experiment()
  # Seconds of a compilation, not of reading the last one.
  jax.config.update("jax_enable_compilation_cache", False)
  model = experiment.stage.model
  print(_title(model), flush=True)
  names = [part.name for part in workload.parts(model)]
  width = max(map(len, [*names, workload.GRADIENT, workload.STEP]))
  head = "".join(f"{name:>{size}}" for name, size in _COLUMNS)
  print(" " * width + head + ("  % of peak" if _PEAK.value else ""))
  rates = []
  for row in workload.measure(experiment, _REPEATS.value, _TRAINING.value):
    print(_line(row, width), flush=True)
    if row.name in (workload.FRAME, workload.STEP):
      rate = _BATCH.value / row.timing.median
      rates.append(f"{row.name}: {rate:.3g} images a second")
  print(_NOTES + "\n".join(rates))
  statistics = jax.devices()[0].memory_stats() or {}  # A CPU keeps none.
  if "peak_bytes_in_use" in statistics:
    most = memory.readable(statistics["peak_bytes_in_use"])
    print(f"{most} of the device's memory in use at the most, over all rows")


if __name__ == "__main__":
  command.run(main, TOPICS)
