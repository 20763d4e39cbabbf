"""Compiles a training step: `python -m pir_jax.compile --config=...`.

Compiles it for the devices at hand and prints memory, operations and seconds;
needs neither data nor published weights, and allocates next to nothing. With
--topology=v5e:16x16 it compiles for TPUs that are not here, and estimates the
time of a step. It ends with 1 where a step does not fit.
"""

import subprocess
import sys

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax.models import triplane_generator
from pir_jax.profiling import abstract_stage, tpu
from pir_jax.runs.experiment import Experiment, checked
from pir_jax.runtime import app
from pir_jax.stages import inpainting, triplane
from pir_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file, such as experiments/expression.py; fields are "
  "set by --config.field=value.",
)
_TRIPLANE = config_flags.DEFINE_config_file(
  "triplane",
  help_string="For the inpainting stage: the tri-plane's experiment file; the "
  "paper's sizes without it.",
)
_TOPOLOGY = flags.DEFINE_list(
  "topology",
  [],
  "TPU slices to compile for, such as v5e:4x4,v5p:8x8x8 (extra tpu-aot).",
)
_PER_DEVICE = flags.DEFINE_integer(
  "per_device",
  None,
  "With --topology: examples on each chip, in place of the config's batch over "
  "all of them.",
  lower_bound=1,
)

_EFFORT = flags.DEFINE_enum(
  "effort",
  "O1",
  list(tpu.EFFORTS),
  "With --topology: of the compiler. O1 takes minutes on two cores and fuses "
  "less than training's own, which takes a quarter of an hour and more.",
)


def _experiment(flag: flags.FlagHolder, name: str) -> Experiment:
  experiment = flag.value
  holder = flags.FLAGS[name]
  if not holder.present:
    raise InputError(f"Missing required flags: --{name}.")
  return checked(experiment, holder.config_filename)


def _forecast(
  experiment: Experiment,
  renderer: triplane_generator.Config,
  topologies: list[str],
) -> None:
  """Prints a line for each slice, as soon as it is known."""
  failed = []
  for i, topology in enumerate(topologies):
    if len(topologies) > 1:
      # A process each: a compiler that crashes ends only itself.
      line = _alone(topology) or f"{topology}: the compiler crashed"
    else:
      line = tpu.row(
        tpu.forecast(
          experiment,
          renderer,
          topology,
          _PER_DEVICE.value,
          effort=_EFFORT.value,
        )
      )
    print(line if i else f"{tpu.HEADER}\n{line}", flush=True)
    failed += [] if " yes " in line else [topology]
  if failed:
    raise InputError(
      f"the step was not compiled for {', '.join(failed)}: where it does not "
      "fit, take fewer examples a chip (--per_device), "
      "--config.stage.accumulate or --config.sharding.fsdp; where the compiler "
      "crashed, another --effort."
    )


def _alone(topology: str) -> str:
  """Compiles for one slice in another process; "" if that crashes."""
  command = [sys.executable, "-m", "pir_jax.compile", *sys.argv[1:]]
  done = subprocess.run(
    [*command, f"--topology={topology}"],
    capture_output=True,
    text=True,
    check=False,
  )
  lines = done.stdout.splitlines()
  if done.returncode == 1 and not lines[2:]:  # With a sentence of why.
    reason = done.stderr.strip().splitlines()[-1]
    raise InputError(reason.removeprefix("compile: ").rstrip("."))
  return lines[2] if lines[2:] else ""


def main() -> None:
  """Compiles the step and prints what it takes."""
  experiment = _experiment(_CONFIG, "config")
  renderer = triplane_generator.Config()
  if flags.FLAGS["triplane"].present:
    other = _experiment(_TRIPLANE, "triplane").stage
    if not isinstance(other, triplane.Config):
      raise InputError(
        "--triplane is another stage's experiment: say "
        "--triplane=experiments/triplane.py."
      )
    renderer = other.model
  elif (
    isinstance(experiment.stage, inpainting.Config)
    and experiment.data.resolution != renderer.resolution
  ):
    raise InputError(
      f"data.resolution={experiment.data.resolution} is not the paper's: name "
      "the tri-plane that is rendered with --triplane."
    )
  # Seconds of a compilation, not of reading the last one.
  jax.config.update("jax_enable_compilation_cache", False)
  if _TOPOLOGY.value:
    # No device is needed, and a TPU at hand is not taken from whoever has it.
    jax.config.update("jax_platforms", "cpu")
    _forecast(experiment, renderer, [name.strip() for name in _TOPOLOGY.value])
    return
  stage, footprints = abstract_stage.compile_steps(experiment, renderer)
  print(abstract_stage.describe(experiment, stage, footprints))


if __name__ == "__main__":
  app.run(main)
