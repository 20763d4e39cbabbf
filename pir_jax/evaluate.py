"""Measures a trained person on held-out frames: `python -m pir_jax.evaluate`.

The contiguous tail of the clip, which no stage was trained on, is painted from
the fitted expression, from the expression heard in the sound, and with the
mouth frozen; each is compared with the true frames beside the truth itself.
With --stage=expression the first network is measured alone: the parametric head
posed with what it hears, against the head as fitted. With --stage=triplane the
second: the face it renders, inside the head, against the frames.
"""

import json
import pathlib

import numpy as np
from absl import flags

from pir_jax import articulation, comparison, portrait, runs, sheet
from pir_jax.data import manifest
from pir_jax.reenactor import Reenactor
from pir_jax.runtime import command
from pir_jax.types import InputError

_MODEL = flags.DEFINE_string(
  "model",
  None,
  "Folder with the runs expression, triplane and inpainting; with --stage the "
  "one of that name is enough, or the run itself.",
)
_DATA = flags.DEFINE_string(
  "data",
  None,
  "Prepared clip; with --stage=expression also several, with commas between.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the report.")
_STAGE = flags.DEFINE_enum(
  "stage",
  "all",
  ["all", "expression", "triplane"],
  "Measure the whole, or one stage alone.",
)
_AUDIO = flags.DEFINE_string(
  "audio", "", "With --stage=expression: another voice to drive everyone with."
)


def evaluate(
  model: str | pathlib.Path,
  data: str | pathlib.Path,
  output: str | pathlib.Path,
) -> str:
  """Writes the report; returns its table as text.

  Raises:
    InputError: the model or the data is not whole.
  """
  model, data, output = map(pathlib.Path, (model, data, output))
  made = manifest.load_manifest(data)
  actor = Reenactor(model, np.float32(made.identity))
  given = comparison.held_out(data, actor)
  frames = comparison.rows(given, actor)
  table = comparison.measure(given, frames)
  text = comparison.as_text(table, len(given.truth), made.source)
  output.mkdir(parents=True, exist_ok=True)
  (output / "table.txt").write_text(text + "\n")
  (output / "table.json").write_text(json.dumps(table, indent=2) + "\n")
  shown = {"real": given.truth} | {
    name: images for name, images in frames.items() if name != comparison.TRUTH
  }
  sheet.contact_sheet(shown, num_columns=6).save(output / "held_out.png")
  return text


def main() -> None:
  """The command."""
  if not (_MODEL.value and _DATA.value and _OUTPUT.value):
    raise InputError("say --model, --data and --output.")
  if _AUDIO.value and _STAGE.value != "expression":
    raise InputError("--audio is for --stage=expression: say that too.")
  if _STAGE.value == "expression":
    paths = runs.Data(path=_DATA.value).paths
    print(articulation.report(_MODEL.value, paths, _OUTPUT.value, _AUDIO.value))
    print(f"{_OUTPUT.value}: speech.txt, speech.json, speech.png")
    return
  if _STAGE.value == "triplane":
    print(portrait.report(_MODEL.value, _DATA.value, _OUTPUT.value))
    print(f"{_OUTPUT.value}: portrait.txt, portrait.json, portrait.png")
    return
  print(evaluate(_MODEL.value, _DATA.value, _OUTPUT.value))
  print(f"{_OUTPUT.value}: table.txt, table.json, held_out.png")


if __name__ == "__main__":
  command.run(main)
