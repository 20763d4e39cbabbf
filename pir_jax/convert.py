"""Converts files of other projects: `python -m pir_jax.convert face_model ...`.

A face model that the user holds becomes one .npz, which `python -m
pir_jax.prepare --face_model=FILE` fits instead of the open head.
"""

from absl import flags

from pir_jax.media import whole_file
from pir_jax.pretrained.heads import importer
from pir_jax.runtime import app
from pir_jax.types import InputError

TOPICS = ("face_model",)
_KIND = flags.DEFINE_enum(
  "kind",
  None,
  importer.KINDS,
  "bfm: Deep3DFaceRecon's BFM_model_front.mat; ict: ICT-FaceKit's folder "
  "FaceXModel; flame: FLAME's generic_model.pkl.",
)
_INPUT = flags.DEFINE_string("input", None, "The file or folder, as published.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz to write.")
_LANDMARKS = flags.DEFINE_string(
  "landmarks", "", "With --kind=flame: its mediapipe_landmark_embedding.npz."
)


def main(unused_topic: str) -> None:
  """Runs the command."""
  args = app.required(_KIND, _INPUT, _OUTPUT)
  if _LANDMARKS.value and _KIND.value != "flame":
    raise InputError("--landmarks is for --kind=flame.")
  kind, published, output = args
  whole_file.check(output, (".npz",))
  with whole_file.written(output) as hidden:
    made = importer.convert(kind, published, hidden, _LANDMARKS.value)
  print(importer.report(made))


if __name__ == "__main__":
  app.run(main, topics=TOPICS)
