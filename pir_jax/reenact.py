"""Makes a person say something else: `python -m pir_jax.reenact --model=...`.

Predicts expressions from speech, inpaints the face in every frame and writes
the video, at the source's size and frame rate, to the length of the speech.
Frames without a face pass unchanged.
"""

from absl import flags

from pir_jax.inference import reenactor, upper_face
from pir_jax.media import fill
from pir_jax.preparation import tracking
from pir_jax.runtime import app

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the runs expression, triplane and inpainting."
)
_VIDEO = flags.DEFINE_string("video", None, "Video of the person.")
_AUDIO = flags.DEFINE_string("audio", None, "Speech: any sound or video file.")
_OUTPUT = flags.DEFINE_string("output", None, "The mp4 to write.")
_FACE = flags.DEFINE_string(
  "face",
  None,
  "Which face: 0 is the largest, 1 the next; or a picture of the person. By "
  "default whoever looks like the trained one.",
)
_FORCE = flags.DEFINE_boolean(
  "force", False, "Also reenact somebody else than was trained."
)
_SHEET = flags.DEFINE_string(
  "sheet", "", "Also write a contact sheet (png): real above reenacted frames."
)
_BROWS = flags.DEFINE_enum(
  "brows",
  "source",
  upper_face.BROWS,
  "As in the source frame or, like the paper's, as predicted from the speech; "
  "where the eyes are inpainted (prepare --mask_region=face).",
)
_BLINKS = flags.DEFINE_enum(
  "blinks",
  "source",
  upper_face.BLINKS,
  "Likewise; also generated at a human rate, for stills, or none.",
)
_FILL = flags.DEFINE_enum(
  "fill",
  "bounce",
  fill.WAYS,
  "Where the speech is longer than the video: play it there and back, again, "
  "hold its last frame, or cut the speech.",
)


def main() -> None:
  """Runs the command."""
  done = reenactor.reenact(
    *app.required(_MODEL, _VIDEO, _AUDIO, _OUTPUT),
    face=None if _FACE.value is None else tracking.face_of(_FACE.value),
    force=_FORCE.value,
    brows=_BROWS.value,
    blinks=_BLINKS.value,
    contact_sheet=_SHEET.value,
    way=_FILL.value,
  )
  print(done.phases.table())
  unchanged = ""
  if done.num_unchanged:
    unchanged = f", {done.num_unchanged} unchanged: no face was detected there"
  print(f"{_OUTPUT.value}: {done.num_frames} frames{unchanged}")


if __name__ == "__main__":
  app.run(main)
