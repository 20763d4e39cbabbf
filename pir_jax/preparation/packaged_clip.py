"""The packaged clip, prepared once into the cache: a first training's data."""

import pathlib

from pir_jax import assets
from pir_jax.data import manifest
from pir_jax.media import video_reader
from pir_jax.preparation import pipeline


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
