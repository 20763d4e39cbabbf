"""Writes a person to files, to be used anywhere: `python -m pir_jax.export`.

The three networks become .safetensors files with a config.json and a model
card. `load`, `reenact`, `inspect` and `--config.stage.init_from` read them
wherever they lie.
"""

import pathlib

from absl import flags

from pir_jax.inference import exporter
from pir_jax.runtime import app

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the runs expression, triplane and inpainting."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to make.")


def main() -> None:
  """Runs the command."""
  model, output = app.required(_MODEL, _OUTPUT)
  print(exporter.export(pathlib.Path(model), pathlib.Path(output)))


if __name__ == "__main__":
  app.run(main)
