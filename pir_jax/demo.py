"""Runs the whole way in one command: `make demo`, or `python -m pir_jax.demo`.

Prepares a clip, adapts the three networks of the base to it, reenacts it with
another voice and measures the result. Each step is printed as the command it
is; what was prepared and trained before is used again.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

from pir_jax import assets
from pir_jax.data import manifest
from pir_jax.media import speech_waveform, video_reader
from pir_jax.preparation import packaged_clip
from pir_jax.runtime import app
from pir_jax.types import InputError

_VIDEO = flags.DEFINE_string(
  "video", "", "Video of the person; empty takes the packaged clip."
)
_AUDIO = flags.DEFINE_string(
  "audio", "", "Speech; empty takes the packaged voice."
)
_RUN = flags.DEFINE_string(
  "run", "", "Folder for data, runs and results; empty takes runs/demo."
)
_SCRATCH = flags.DEFINE_boolean(
  "scratch", False, "Begin from nothing, and train longer, instead."
)
_STAGES = ("expression", "triplane", "inpainting")


def demo(
  video: str, audio: str, folder: pathlib.Path, *, scratch: bool = False
) -> None:
  """Runs every step that is not yet done.

  Args:
    video: of the person; "" takes the packaged clip.
    audio: speech; "" takes the packaged voice.
    folder: for data, runs and results.
    scratch: begin from nothing and not from the base.

  Raises:
    InputError: a file cannot be used, or the folder holds another video's run.
  """
  # Wrong files fail at once, not after minutes of training.
  missing = [
    path for path in (video, audio) if path and not os.path.exists(path)
  ]
  if missing:
    raise InputError(f"{' and '.join(missing)} missing: check the names.")
  video = video or str(assets.fetch("demo_video"))
  if not video_reader.probe(video).has_audio:
    raise InputError(
      f"{video} has no sound: the speech that goes with the face is needed to "
      "learn from."
    )
  if audio:
    speech_waveform.check(video_reader.read_audio(audio))
  folder.mkdir(parents=True, exist_ok=True)
  # Prepares no less quickly meanwhile; what fails is asked for again.
  fetching = subprocess.Popen(
    [sys.executable, "-m", "pir_jax.assets", "fetch"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  audio = audio or str(packaged_clip.voice(folder))
  data = folder / "data"
  if data.exists():
    if manifest.load_manifest(data).sha256 != video_reader.digest(video):
      raise InputError(
        f"{folder} holds the run of another video: say RUN=another/folder or "
        "delete it."
      )
  else:
    try:
      _step("prepare", f"--video={video}", f"--output={data}")
    except BaseException:
      fetching.terminate()
      raise
  fetching.wait()
  variant = "scratch" if scratch else "demo"
  for stage in _STAGES:
    _step(
      "train",
      f"--config={_experiments() / stage}.py:{variant}",
      f"--config.data.path={data}",
      f"--workdir={folder / stage}",
    )
  _step(
    "reenact",
    f"--model={folder}",
    f"--video={video}",
    f"--audio={audio}",
    f"--output={folder / 'out.mp4'}",
    f"--sheet={folder / 'contact_sheet.png'}",
  )
  _step(
    "evaluate",
    f"--model={folder}",
    f"--data={data}",
    f"--output={folder / 'report'}",
  )
  print(f"\nThe video:          {folder / 'out.mp4'}")
  print(f"Real / reenacted:   {folder / 'contact_sheet.png'}")
  print(f"Held-out frames:    {folder / 'report' / 'held_out.png'}")
  print(f"Table:              {folder / 'report' / 'table.txt'}")


def _experiments() -> pathlib.Path:
  return pathlib.Path(__file__).parents[1] / "experiments"


def _step(name: str, *arguments: str) -> None:
  """Runs one of the commands; exits if it fails."""
  line = [sys.executable, "-m", f"pir_jax.{name}", *arguments]
  print("\n$ " + shlex.join(["python", *line[1:]]), flush=True)
  start = time.monotonic()
  result = subprocess.run(line, check=False)
  if result.returncode:
    sys.exit(result.returncode)
  print(f"({time.monotonic() - start:.0f} s)", flush=True)


def main() -> None:
  """Runs the command."""
  folder = pathlib.Path(_RUN.value or "runs/demo")
  demo(_VIDEO.value, _AUDIO.value, folder, scratch=_SCRATCH.value)


if __name__ == "__main__":
  app.run(main)
