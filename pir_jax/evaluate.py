"""Measures a trained person on held-out frames: `python -m pir_jax.evaluate`.

The contiguous tail of the clip, which no stage was trained on, is painted from
the fitted expression, from the expression heard in the sound, and with the
mouth frozen; each is compared with the true frames beside the truth itself.
With --stage=expression the first network is measured alone: the parametric head
posed with what it hears, against the head as fitted.
"""

import json
import pathlib

import numpy as np
from absl import flags

from pir_jax import articulation, comparison, runs, sheet
from pir_jax.data import manifest
from pir_jax.face import morphable
from pir_jax.reenactor import Reenactor
from pir_jax.runtime import command
from pir_jax.stages import expression
from pir_jax.types import FRAME_RATE, InputError

_MODEL = flags.DEFINE_string(
  "model",
  None,
  "Folder with the runs expression, triplane and inpainting; the first is "
  "enough for --stage=expression.",
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
  ["all", "expression"],
  "Measure the whole, or the first stage.",
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


def evaluate_speech(
  model: str | pathlib.Path,
  data: list[str],
  output: str | pathlib.Path,
  audio: str | pathlib.Path = "",
) -> str:
  """Writes the report on the expression stage alone; returns its tables.

  Args:
    model: folder with the run `expression`, or that run itself.
    data: prepared clips, of people in the training data or not.
    output: folder for the report.
    audio: another voice, or "".

  Raises:
    InputError: the model, the data or the voice cannot be used.
  """
  model, output = pathlib.Path(model), pathlib.Path(output)
  given = [found for path in data for found in articulation.passages(path)]
  voice = articulation.read_voice(audio) if audio else None
  inside = model / "expression"
  run = runs.open_run(inside if inside.exists() else model)
  if not isinstance(run.experiment.stage, expression.Config):
    raise InputError(f"{model} is a run of another stage than expression.")
  head = morphable.load()
  known = {tuple(p["identity"]) for p in run.people}
  tables, panels = {}, {}
  for number, passage in enumerate(given, 1):
    title = f"{number}. {passage.source}"
    if tuple(passage.identity.astype(float).tolist()) not in known:
      title += ", a clip not in the training data"
    rows, openings = articulation.measure(passage, run, head)
    if voice is not None:
      name = f"ours, {pathlib.Path(audio).name}"
      rows[name], spoken = articulation.measure_voice(voice, passage, run, head)
      openings[name] = spoken[: 2 * len(passage.held_out)]
    tables[title] = rows
    edge = passage.held_out.argmax() / FRAME_RATE
    panels[f"{title}: lip opening, held out from {edge:.2f} s on"] = openings
  if len(given) > 1:
    tables[f"all {len(given)} passages"] = articulation.pooled(tables.values())
  text = "\n\n".join(
    articulation.as_text(rows, title) for title, rows in tables.items()
  )
  text += "\n\n" + articulation.LEGEND
  output.mkdir(parents=True, exist_ok=True)
  (output / "speech.txt").write_text(text + "\n")
  plain = {
    title: {name: articulation.to_plain(row) for name, row in rows.items()}
    for title, rows in tables.items()
  }
  (output / "speech.json").write_text(json.dumps(plain, indent=2) + "\n")
  picture = sheet.curves(panels, rate=float(FRAME_RATE), unit="mm")
  picture.save(output / "speech.png")
  return text


def main() -> None:
  """The command."""
  if not (_MODEL.value and _DATA.value and _OUTPUT.value):
    raise InputError("say --model, --data and --output.")
  if _AUDIO.value and _STAGE.value != "expression":
    raise InputError("--audio is for --stage=expression: say that too.")
  if _STAGE.value == "expression":
    paths = runs.Data(path=_DATA.value).paths
    print(evaluate_speech(_MODEL.value, paths, _OUTPUT.value, _AUDIO.value))
    print(f"{_OUTPUT.value}: speech.txt, speech.json, speech.png")
    return
  print(evaluate(_MODEL.value, _DATA.value, _OUTPUT.value))
  print(f"{_OUTPUT.value}: table.txt, table.json, held_out.png")


if __name__ == "__main__":
  command.run(main)
