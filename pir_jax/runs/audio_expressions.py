"""What the expression network hears in a clip's own sound, frame by frame.

t source frames, n training frames, s audio samples, k ticks, e expression
coefficients.
"""

import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from pir_jax.data import manifest, records, sources, speech_augmentation, timing
from pir_jax.data.track import load_track
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import open_run
from pir_jax.stages import inpainting
from pir_jax.types import FaceSpace, InputError


def expressions(
  data: str | pathlib.Path,
  speak: Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "k e"]],
) -> tuple[Float[np.ndarray, "t e"], Bool[np.ndarray, "t"]]:
  """Raw expressions at every source frame, and where there is sound to hear.

  Args:
    data: a prepared clip.
    speak: speech -> raw expressions at FRAME_RATE.
  """
  data = pathlib.Path(data)
  track, _ = load_track(data)
  ticks = timing.tick_times(track.times)
  heard = np.zeros((len(ticks), track.expression.shape[1]), np.float32)
  known = np.zeros(len(ticks), bool)
  for record in records.open_records(data / records.CLIPS):
    clip = records.decode_clip(record)
    place = slice(clip.start, clip.start + len(clip.valid))
    heard[place] = speak(clip.waveform)[: len(clip.valid)]
    known[place] = True
  if not known.any():
    return np.zeros_like(track.expression), np.zeros(len(track.times), bool)
  found, _ = timing.interpolate(ticks, heard, known, track.times)
  nearest = np.abs(ticks[None] - track.times[:, None]).argmin(1)
  return np.asarray(found, np.float32), known[nearest]


def training_table(
  experiment: Experiment, space: FaceSpace, workdir: pathlib.Path
) -> Float[np.ndarray, "n e"] | None:
  """Of every training frame of stage 3; None where it does not ask for any.

  A frame without sound keeps what was fitted to it.

  Raises:
    InputError: stage 1 is missing, or is of another face model.
  """
  config = experiment.stage
  if not isinstance(config, inpainting.Config) or not config.augmentation.heard:
    return None
  place = pathlib.Path(
    config.expression or workdir.resolve().parent / "expression"
  )
  try:
    run = open_run(place)
  except InputError as error:
    raise InputError(
      f"augmentation.heard asks for stage 1: {error} Or set "
      "--config.stage.augmentation.heard=0."
    ) from error
  if not run.space.is_like(space):
    raise InputError(f"{place} was trained with another face model.")
  rows = []
  for folder in experiment.data.paths:
    identity = np.float32(manifest.load_manifest(folder).identity)

    def speak(waveform, identity=identity):
      return run.stage.predict(
        run.state, speech_augmentation.level(waveform), identity
      )

    heard, known = expressions(folder, speak)
    track, _ = load_track(folder)
    frames = sources.stored_frames(folder, "train")
    rows.append(
      np.where(known[frames, None], heard[frames], track.expression[frames])
    )
  return np.concatenate(rows)
