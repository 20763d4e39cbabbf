"""Makes a person say something else: `python -m pir_jax.reenact --model=...`.

Predicts expressions from speech, inpaints the face in every frame and writes
the video, at the source's size and frame rate, to the length of the speech.
Frames without a face pass unchanged. Live, from and to pipes:

  ffmpeg -f pulse -i default -f s16le -ac 1 -ar 16000 - |
    python -m pir_jax.reenact --model=... --video=... --audio=- --output=- |
    ffplay -
"""

from absl import flags

from pir_jax.inference import live_output, reenactor, upper_face
from pir_jax.marks import marking
from pir_jax.media import fill, live_writer, pcm
from pir_jax.preparation import tracking
from pir_jax.runtime import app
from pir_jax.types import SAMPLE_RATE, InputError

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the runs expression, triplane and inpainting."
)
_VIDEO = flags.DEFINE_string("video", None, "Video of the person.")
_AUDIO = flags.DEFINE_string(
  "audio",
  None,
  "Speech: any sound or video file; - is 16-bit PCM, little-endian, mono, from "
  "standard input, reenacted while it comes.",
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The mp4 to write; with --audio=- also -, standard output."
)
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
_MARK = flags.DEFINE_enum(
  "mark",
  "all",
  marking.CHOICES,
  "A signed manifest and a watermark that cannot be seen; or neither.",
)
_VISIBLE_MARK = flags.DEFINE_boolean(
  "visible_mark", False, "Also a label in a corner: AI-generated."
)
_AUDIO_RATE = flags.DEFINE_integer(
  "audio_rate", SAMPLE_RATE, "With --audio=-: samples a second of the PCM."
)
_LOOK_AHEAD = flags.DEFINE_float(
  "look_ahead",
  0.2,
  "With --audio=-: seconds of speech that a frame waits for, 0 to 1; the lips "
  "follow better the more there are.",
)
_PATIENCE = flags.DEFINE_float(
  "patience",
  None,
  "With --audio=-: seconds by which live sound may be late before silence "
  "takes its place; by default it is waited for.",
)
_FORMAT = flags.DEFINE_enum(
  "format",
  "mp4",
  live_writer.FORMATS,
  "With --audio=-: fragmented mp4, or RGB frames without sound.",
)

_LIVE_FLAGS = ("audio_rate", "look_ahead", "patience", "format")


def main() -> None:
  """Runs the command."""
  model, video, audio, output = app.required(_MODEL, _VIDEO, _AUDIO, _OUTPUT)
  options = {
    "face": None if _FACE.value is None else tracking.face_of(_FACE.value),
    "force": _FORCE.value,
    "brows": _BROWS.value,
    "blinks": _BLINKS.value,
    "way": _FILL.value,
    "mark": _MARK.value,
    "visible_mark": _VISIBLE_MARK.value,
  }
  if audio == "-":
    _live(model, video, output, options)
    return
  for name in _LIVE_FLAGS:
    if flags.FLAGS[name].present:
      raise InputError(f"--{name} is for speech from a pipe: --audio=-.")
  if output == "-":
    raise InputError(
      "--output=- is for speech that comes through a pipe: ffmpeg -i "
      f"{audio} -f s16le -ac 1 -ar {SAMPLE_RATE} - | pir-jax reenact "
      "--audio=- --output=- ..."
    )
  done = reenactor.reenact(
    *(model, video, audio, output), contact_sheet=_SHEET.value, **options
  )
  print(done.phases.table())
  unchanged = ""
  if done.num_unchanged:
    unchanged = f", {done.num_unchanged} unchanged: no face was detected there"
  print(f"{output}: {done.num_frames} frames{unchanged}")


def _live(model: str, video: str, output: str, options: dict) -> None:
  """Reenacts PCM from standard input while it comes."""
  if _SHEET.value:
    raise InputError("--sheet needs the whole speech: give --audio a file.")
  live_output.write(
    *(model, video, pcm.read(0), output),
    sample_rate=_AUDIO_RATE.value,
    look_ahead=_LOOK_AHEAD.value,
    patience=_PATIENCE.value,
    kind=_FORMAT.value,
    **options,
  )


if __name__ == "__main__":
  app.run(main, continues=False)
