"""Expressions predicted from a clip's own speech, frame by frame.

t source frames, n training frames, s audio samples, k ticks, e expression
coefficients.
"""

import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from pir_jax.data import timing
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.media import speech_waveform
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import open_run, place_of
from pir_jax.stages import inpainting
from pir_jax.types import InputError


def expressions(
  clip: Clip,
  predict: Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "k e"]],
) -> tuple[Float[np.ndarray, "t e"], Bool[np.ndarray, "t"]]:
  """Predicts raw expressions at every source frame, and where it could.

  Args:
    clip: with its speech.
    predict: speech -> raw expressions at FRAME_RATE.

  Returns:
    The expressions, and which frames have sound.
  """
  track = clip.track
  ticks = timing.tick_times(track.times)
  predicted = np.zeros((len(ticks), track.expression.shape[1]), np.float32)
  known = np.zeros(len(ticks), bool)
  for run in clip.speech():
    place = slice(run.start, run.start + len(run.valid))
    predicted[place] = predict(run.waveform)[: len(run.valid)]
    known[place] = True
  if not known.any():
    return np.zeros_like(track.expression), np.zeros(len(track.times), bool)
  frames, _ = timing.interpolate(ticks, predicted, known, track.times)
  nearest = np.abs(ticks[None] - track.times[:, None]).argmin(1)
  return np.asarray(frames, np.float32), known[nearest]


def training_table(
  experiment: Experiment, data: Dataset, workdir: pathlib.Path
) -> Float[np.ndarray, "n e"] | None:
  """Predicts expressions for every training frame of stage 3.

  A frame without sound keeps its fitted one. None where the stage does not use
  predicted expressions.

  Raises:
    InputError: stage 1 is missing, or is of another face model.
  """
  config = experiment.stage
  if (
    not isinstance(config, inpainting.Config)
    or not config.augmentation.predicted
  ):
    return None
  place = place_of(workdir.resolve().parent, "expression")
  if config.expression:
    place = pathlib.Path(config.expression)
  try:
    run = open_run(place)
  except InputError as error:
    raise InputError(
      f"augmentation.predicted asks for stage 1: {error} Or set "
      "--config.stage.augmentation.predicted=0."
    ) from error
  if not run.space.is_like(data.space):
    raise InputError(f"{place} was trained with another face model.")
  rows = []
  for clip in data:
    who = np.float32(clip.manifest.identity), clip.expression_stats

    def predict(waveform, who=who):
      return run.stage.predict(
        run.state, speech_waveform.normalize(waveform), *who
      )

    predicted, known = expressions(clip, predict)
    frames = clip.frames("train")
    fitted = clip.track.expression[frames]
    rows.append(np.where(known[frames, None], predicted[frames], fitted))
  return np.concatenate(rows)
