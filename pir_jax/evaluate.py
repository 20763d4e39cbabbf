"""Measures a trained person on held-out frames: `python -m pir_jax.evaluate`.

The contiguous tail of the clip, which no stage was trained on, is inpainted
with the fitted expression, with the audio-driven expression and with the mouth
frozen; each is compared with the ground truth. With --stage=expression the
first network is measured alone: the parametric head posed with its predictions,
against the head as fitted. With --stage=triplane the second: the face that it
renders, inside the head, against the frames. With --stage=video a reenacted
video is measured against the video it was made of. What each figure means is in
pir_jax/evaluation/README.md.
"""

from absl import flags

from pir_jax.data.dataset import Clip, Dataset
from pir_jax.evaluation import expression, reenactment, triplane, video
from pir_jax.media import fill, whole_file
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
_FILL = flags.DEFINE_enum(
  "fill",
  "bounce",
  fill.WAYS,
  "With --stage=video: the --fill with which `reenact` made it.",
)


def main() -> None:
  """Runs the command."""
  stage = _STAGE.value
  if _AUDIO.value and stage not in ("expression", "video"):
    raise InputError(
      "--audio is for --stage=expression and --stage=video: say one of them."
    )
  if stage == "video":
    args = app.required(_MODEL, _SOURCE, _VIDEO, _OUTPUT)
    whole_file.check_folder(_OUTPUT.value)
    print(video.report(*args, _AUDIO.value, _FILL.value))
    print(f"{_OUTPUT.value}: video.txt, video.json, video.png")
    return
  model, data, output = app.required(_MODEL, _DATA, _OUTPUT)
  whole_file.check_folder(output)
  if stage == "expression":
    clips = Dataset.open(Data(path=data).paths)
    print(expression.report(model, clips, output, _AUDIO.value))
    print(f"{output}: speech.txt, speech.json, speech.png")
  elif stage == "triplane":
    print(triplane.report(model, Clip.open(data), output))
    print(f"{output}: triplane.txt, triplane.json, triplane.png")
  else:
    print(reenactment.evaluate(model, data, output))
    print(f"{output}: table.txt, table.json, held_out.png, mouths.png")


if __name__ == "__main__":
  app.run(main, continues=False)
