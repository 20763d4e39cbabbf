"""What a training step takes: `python -m pir_jax.compile --config=...`.

Compiles it for the devices at hand and prints memory, operations and seconds;
needs neither data nor published weights, and allocates next to nothing.
"""

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax import blueprint, runs
from pir_jax.models import generator
from pir_jax.runtime import command
from pir_jax.stages import triplane
from pir_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file, such as experiments/expression.py; fields are "
  "set by --config.field=value.",
)
_TRIPLANE = config_flags.DEFINE_config_file(
  "triplane",
  help_string="For the inpainting stage: the tri-plane's experiment file; the "
  "paper's sizes where none is given.",
)


def _experiment(flag: flags.FlagHolder, name: str) -> runs.Experiment:
  experiment = flag.value
  if not isinstance(experiment, runs.Experiment):
    holder = flags.FLAGS[name]
    given = holder.config_filename if holder.present else "nothing"
    raise InputError(
      f"{given} is no experiment: say --{name}=experiments/triplane.py, or "
      "another file whose get_config returns a runs.Experiment."
    )
  return experiment


def main() -> None:
  """The command."""
  experiment = _experiment(_CONFIG, "config")
  renderer = generator.Config()
  if flags.FLAGS["triplane"].present:
    other = _experiment(_TRIPLANE, "triplane").stage
    if not isinstance(other, triplane.Config):
      raise InputError(
        "--triplane is another stage's experiment: say "
        "--triplane=experiments/triplane.py."
      )
    renderer = other.model
  # Seconds of a compilation, not of reading the last one.
  jax.config.update("jax_enable_compilation_cache", False)
  stage, footprints = blueprint.compile_steps(experiment, renderer)
  print(blueprint.describe(experiment, stage, footprints))


if __name__ == "__main__":
  command.run(main)
