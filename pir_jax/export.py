"""Writes a person to files, to be used anywhere: `python -m pir_jax.export`.

The three networks become .safetensors files with a config.json and a model
card. `load`, `reenact`, `inspect` and `--config.stage.init_from` read them
wherever they lie.
"""

import pathlib

from absl import flags

from pir_jax.inference import exporter
from pir_jax.media import whole_file
from pir_jax.runtime import app

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the runs expression, triplane and inpainting."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to make.")
_BASE = flags.DEFINE_boolean(
  "base",
  False,
  "Write a base to begin others' training from, without whom it learnt from.",
)


def main() -> None:
  """Runs the command."""
  model, output = app.required(_MODEL, _OUTPUT)
  whole_file.check_folder(output)
  paths = pathlib.Path(model), pathlib.Path(output)
  print(exporter.export(*paths, base=_BASE.value))


if __name__ == "__main__":
  app.run(main, continues=False)
