"""Makes a person say something else: `python -m pir_jax.reenact --model=...`.

Predicts expressions from speech, inpaints the face in every frame and writes
the video, at the source's size and frame rate, to the length of the speech.
Frames without a face pass unchanged. Live, from and to pipes:

  ffmpeg -f pulse -i default -f s16le -ac 1 -ar 16000 - |
    python -m pir_jax.reenact --model=... --video=... --audio=- --output=- |
    ffplay -
"""

from absl import flags

from pir_jax.inference import live, reenactor, upper_face
from pir_jax.inference import source as source_lib
from pir_jax.media import fill, live_writer, pcm, whole_file
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
  args = app.required(_MODEL, _VIDEO, _AUDIO, _OUTPUT)
  if _AUDIO.value == "-":
    _live(*args)
    return
  for name in _LIVE_FLAGS:
    if flags.FLAGS[name].present:
      raise InputError(f"--{name} is for speech from a pipe: --audio=-.")
  if _OUTPUT.value == "-":
    raise InputError(
      "--output=- is for speech that comes through a pipe: ffmpeg -i "
      f"{_AUDIO.value} -f s16le -ac 1 -ar {SAMPLE_RATE} - | pir-jax reenact "
      "--audio=- --output=- ..."
    )
  done = reenactor.reenact(
    *args,
    contact_sheet=_SHEET.value,
    brows=_BROWS.value,
    blinks=_BLINKS.value,
    way=_FILL.value,
    **_who(),
  )
  print(done.phases.table())
  unchanged = ""
  if done.num_unchanged:
    unchanged = f", {done.num_unchanged} unchanged: no face was detected there"
  print(f"{_OUTPUT.value}: {done.num_frames} frames{unchanged}")


def _who() -> dict:
  face = None if _FACE.value is None else tracking.face_of(_FACE.value)
  return {"face": face, "force": _FORCE.value}


def _live(model: str, video: str, _: str, output: str) -> None:
  """Reenacts PCM from standard input while it comes."""
  if _SHEET.value:
    raise InputError("--sheet needs the whole speech: give --audio a file.")
  options = {
    "sample_rate": _AUDIO_RATE.value,
    "look_ahead": _LOOK_AHEAD.value,
    "patience": _PATIENCE.value,
    "kind": _FORMAT.value,
    "way": _FILL.value,
    "brows": _BROWS.value,
    "blinks": _BLINKS.value,
  }
  live.check(_AUDIO_RATE.value, _LOOK_AHEAD.value, _PATIENCE.value)
  with whole_file.opened(output, (f".{_FORMAT.value}",)) as file:
    source = source_lib.open_source(model, video, **_who())
    count = live.write(source, pcm.read(0), file, **options)
    print(source.person.phases.table())
    print(f"{output}: {count} frames")


if __name__ == "__main__":
  app.run(main, continues=False)
