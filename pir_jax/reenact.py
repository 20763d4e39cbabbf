"""Makes a person say something else: `python -m pir_jax.reenact --model=...`.

Speech -> expressions -> painted windows -> the video, at the source's size and
rate, to the length of the speech. Frames without a face pass unchanged.
"""

import pathlib

import numpy as np
from absl import flags
from rich import progress

from pir_jax.data import speech_augmentation, timing
from pir_jax.inference.reenactor import Reenactor, person, repaint
from pir_jax.media import crops, pingpong, plots, video_reader, video_writer
from pir_jax.preparation import tracking
from pir_jax.runtime import app, section_timer
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the runs expression, triplane and inpainting."
)
_VIDEO = flags.DEFINE_string("video", None, "Video of the person.")
_AUDIO = flags.DEFINE_string("audio", None, "Speech: any sound or video file.")
_OUTPUT = flags.DEFINE_string("output", None, "The mp4 to write.")
_FACE = flags.DEFINE_integer("face", 0, "Which face: 0 is the largest.")
_SHEET = flags.DEFINE_string(
  "sheet", "", "Also write a contact sheet (png): real above reenacted frames."
)
_EYES = flags.DEFINE_enum(
  "eyes",
  "source",
  ["source", "speech"],
  "Blinks and brows: as in the source frame, or, like the paper's, as the "
  "expression network hears them in the speech. A face model whose units have "
  "no names takes all from the speech.",
)
_SHEET_COLUMNS = 6
_SHEET_SIDE = 256
# Not the others of the upper face: in a short clip they go with an open mouth,
# and networks that learnt from it part the lips.
_UPPER = ("eyeBlink", "brow")


def reenact(
  model: str | pathlib.Path,
  video: str | pathlib.Path,
  audio: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  face: int = 0,
  eyes: str = "source",
  contact_sheet: str | pathlib.Path = "",
) -> tuple[int, int, section_timer.Phases]:
  """Writes the video.

  Returns:
    The number of frames, of those that passed unchanged, and how long what
    took.

  Raises:
    InputError: a file cannot be used, or the model is not whole.
  """
  output = pathlib.Path(output)
  _check_output(output, video, audio, contact_sheet)
  sound = video_reader.read_audio(audio)
  heard = speech_augmentation.check(sound, silence=True)
  trained = pathlib.Path(model)
  who = person(trained, video_reader.digest(video))
  if not heard:
    print("The sound is silent: the mouth will stay closed.")
    sound[:] = 0  # Or hiss would be raised to the level of speech.
  phases = section_timer.Phases()
  options = who.analysis() | {"face": face, "phases": phases}
  seen = tracking.analyse(video, **options)
  actor = Reenactor(trained, who.identity, phases=phases)
  rate = seen.video.rate
  count = max(1, round(len(sound) / SAMPLE_RATE * rate))
  with phases.measure("speech", count):
    spoken = actor.speak(sound)
  wanted, _ = timing.interpolate(
    np.arange(len(spoken)) / FRAME_RATE,
    spoken,
    np.ones(len(spoken), bool),
    np.arange(count) / float(rate),
  )
  size = (seen.video.width, seen.video.height)
  # Speech says little of blinks, and the source's own go with its picture.
  names = actor.space.expression_names
  kept = np.array([eyes == "source" and n.startswith(_UPPER) for n in names])
  unchanged = 0
  source = pingpong.frame_indices(len(seen.track.times), count)
  shown = np.linspace(0, count - 1, min(count, _SHEET_COLUMNS)).astype(int)
  real, reenacted = [], []
  with video_writer.VideoWriter(output, size, rate, audio=audio) as sink:
    pairs = repaint(actor, seen, wanted, kept, phases)
    for index, (before, after) in enumerate(
      progress.track(pairs, description="painting", total=count)
    ):
      unchanged += after is before
      with phases.measure("encode"):
        sink.write(after)
      if index in shown:
        window = seen.track.window[source[index]]
        real.append(crops.crop_window(before, window, _SHEET_SIDE))
        reenacted.append(crops.crop_window(after, window, _SHEET_SIDE))
  if contact_sheet:
    rows = {"real": np.stack(real), "reenacted": np.stack(reenacted)}
    plots.contact_sheet(rows, num_columns=_SHEET_COLUMNS).save(contact_sheet)
  return count, unchanged, phases


def _check_output(output, video, audio, contact_sheet) -> None:
  """Told before the work, not after it."""
  if output.resolve() in {pathlib.Path(p).resolve() for p in (video, audio)}:
    raise InputError(f"{output} is the source itself: choose another name.")
  if output.suffix.lower() != ".mp4" or not output.parent.is_dir():
    raise InputError(
      f"{output} must end in .mp4 and lie in a folder that exists."
    )
  place = pathlib.Path(contact_sheet)
  if contact_sheet and (
    place.suffix.lower() not in (".png", ".jpg") or not place.parent.is_dir()
  ):
    raise InputError(
      f"{place} must end in .png or .jpg and lie in a folder that exists."
    )


def main() -> None:
  """The command."""
  given = (_MODEL.value, _VIDEO.value, _AUDIO.value, _OUTPUT.value)
  if not all(given):
    raise InputError("say --model, --video, --audio and --output.")
  count, unchanged, phases = reenact(
    *given,
    face=_FACE.value,
    eyes=_EYES.value,
    contact_sheet=_SHEET.value,
  )
  print(phases.table())
  print(
    f"{_OUTPUT.value}: {count} frames, {unchanged} unchanged (face not seen)"
  )


if __name__ == "__main__":
  app.run(main)
