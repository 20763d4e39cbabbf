"""Measures a trained person on held-out frames: `python -m pir_jax.evaluate`.

The contiguous tail of the clip, which no stage was trained on, is painted from
the fitted expression, from the expression heard in the sound, and with the
mouth frozen; each is compared with the true frames beside the truth itself.
With --stage=expression the first network is measured alone: the parametric head
posed with what it hears, against the head as fitted. With --stage=triplane the
second: the face it renders, inside the head, against the frames. With
--stage=video a reenacted video is measured against the video it was made of.
"""

import json
import pathlib

import numpy as np
from absl import flags

from pir_jax.data import manifest
from pir_jax.evaluation import (
  comparison,
  expression,
  mask_leakage,
  reenactment,
  triplane,
  video,
)
from pir_jax.inference.reenactor import Reenactor
from pir_jax.media import plots
from pir_jax.runs.experiment import Data
from pir_jax.runtime import app
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
  ["all", "expression", "triplane", "video"],
  "Measure the whole, or one stage alone, or a reenacted video.",
)
_AUDIO = flags.DEFINE_string(
  "audio",
  "",
  "With --stage=expression: another voice to drive everyone with. With "
  "--stage=video: the driving speech, else the video's own sound.",
)
_SOURCE = flags.DEFINE_string(
  "source", None, "With --stage=video: the video that was reenacted."
)
_VIDEO = flags.DEFINE_string(
  "video", None, "With --stage=video: what `reenact` made of it."
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
  table = reenactment.measure(given, frames)
  readings = mask_leakage.read(data, actor.resolution)
  text = reenactment.as_text(table, len(given.truth), made.source)
  text += "\n\n" + mask_leakage.as_text(readings)
  output.mkdir(parents=True, exist_ok=True)
  (output / "table.txt").write_text(text + "\n")
  plain = {
    "rows": {name: row._asdict() for name, row in table.items()},
    "leak": {
      name: {part: x._asdict() for part, x in pair._asdict().items()}
      for name, pair in readings.items()
    },
  }
  (output / "table.json").write_text(json.dumps(plain, indent=2) + "\n")
  shown = {"real": given.truth} | {
    name: images for name, images in frames.items() if name != comparison.TRUTH
  }
  plots.contact_sheet(shown, num_columns=6).save(output / "held_out.png")
  return text


def main() -> None:
  """The command."""
  stage, model, data = _STAGE.value, _MODEL.value, _DATA.value
  output = _OUTPUT.value
  if _AUDIO.value and stage not in ("expression", "video"):
    raise InputError(
      "--audio is for --stage=expression and --stage=video: say one of them."
    )
  if stage == "video":
    if not (model and _SOURCE.value and _VIDEO.value and output):
      raise InputError("say --model, --source, --video and --output.")
    given = (model, _SOURCE.value, _VIDEO.value, output, _AUDIO.value)
    print(video.report(*given))
    print(f"{output}: video.txt, video.json, video.png")
    return
  if not (model and data and output):
    raise InputError("say --model, --data and --output.")
  if stage == "expression":
    paths = Data(path=data).paths
    print(expression.report(model, paths, output, _AUDIO.value))
    print(f"{output}: speech.txt, speech.json, speech.png")
  elif stage == "triplane":
    print(triplane.report(model, data, output))
    print(f"{output}: portrait.txt, portrait.json, portrait.png")
  else:
    print(evaluate(model, data, output))
    print(f"{output}: table.txt, table.json, held_out.png")


if __name__ == "__main__":
  app.run(main)
