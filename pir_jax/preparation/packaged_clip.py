"""The packaged clip, prepared once into the cache, and the packaged voice."""

import pathlib

import soundfile

from pir_jax import assets
from pir_jax.data import manifest
from pir_jax.media import video_reader, whole_file
from pir_jax.preparation import pipeline

_SECONDS = 10  # Of the voice: enough to see it speak.


def prepared() -> pathlib.Path:
  """Returns the prepared clip's folder, made where it is not there yet.

  Raises:
    InputError: the clip cannot be downloaded or prepared.
  """
  video = assets.fetch("demo_video")
  settings = pipeline.Settings()
  key = pipeline.key(video_reader.digest(video), settings.digest())
  folder = assets.cache_directory() / "clips" / f"demo-{key[:12]}"
  if not (folder / manifest.FILE_NAME).exists():
    print(f"preparing the packaged clip in {folder}, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    pipeline.prepare(video, folder)
  return folder


def voice(folder: pathlib.Path) -> pathlib.Path:
  """Writes the first seconds of the packaged voice to a folder."""
  path = folder / "voice.wav"
  if not path.exists():
    source = assets.fetch("demo_audio")
    rate = soundfile.info(source).samplerate
    sound, rate = soundfile.read(source, frames=_SECONDS * rate)
    with whole_file.written(path) as hidden:
      soundfile.write(hidden, sound, rate)
  return path
