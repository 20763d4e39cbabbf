"""What a viewer shows beside the face of a run: cameras and speech."""

import pathlib

import numpy as np

from pir_jax.data.dataset import Clip
from pir_jax.inference.person import KnownPerson, read_speech
from pir_jax.interface.timeline import LONGEST, Timeline
from pir_jax.media import speech_waveform
from pir_jax.runs.experiment import experiment_of
from pir_jax.runs.run import open_run, place_of, read_record
from pir_jax.types import Cameras, FaceSpace, InputError

NUM_CAMERAS = 24  # More hide each other.


def clip_of(model: pathlib.Path, person: int = 0) -> Clip | None:
  """The clip that a run learnt a person from, where it still lies there.

  Args:
    model: a stage 2 run, or the folder in which it is called triplane.
    person: which one of the run.

  Raises:
    InputError: there is no such run.
  """
  record = read_record(_run_of(model))
  try:
    clip = experiment_of(record).data.open()[person]
  except (InputError, IndexError):
    return None
  known = record["people"][person]["sha256"]
  return clip if clip.manifest.sha256 == known else None


def cameras_of(clip: Clip, num: int = NUM_CAMERAS) -> Cameras:
  """Returns up to `num` cameras of a clip's training frames, evenly in time."""
  frames = clip.frames("train")
  chosen = np.unique(np.linspace(0, len(frames) - 1, num).astype(int))
  frames = frames[chosen]
  return Cameras(clip.track.pose[frames], clip.track.intrinsics[frames])


def timeline_of(
  model: pathlib.Path,
  audio: str | pathlib.Path,
  space: FaceSpace,
  person: int = 0,
) -> Timeline:
  """Predicts the expressions of a speech file by stage 1 of a person.

  Speech of more than five minutes ends there.

  Args:
    model: folder with the runs expression and triplane.
    audio: a sound or video file.
    space: of the implicit face.
    person: which one of its run.

  Raises:
    InputError: the sound cannot be read, or there is no such stage 1.
  """
  place = place_of(model, "expression")
  if not place.exists():
    raise InputError(
      f"speech needs the run expression, which {model} does not hold: train "
      "stage 1 there, or leave out --audio."
    )
  waveform = read_speech(audio, LONGEST)
  run = open_run(place)
  if not run.space.is_like(space):
    raise InputError(
      "the runs were trained with different face models: train them again on "
      "one data set."
    )
  record = read_record(_run_of(model))["people"][person]
  known = KnownPerson.from_record(record)
  speaker = run.stage.speaker(run.state)
  expression = speaker.predict(
    speech_waveform.normalize(waveform), known.identity, known.stats
  )
  return Timeline(expression, waveform)


def _run_of(model: pathlib.Path) -> pathlib.Path:
  place = place_of(model, "triplane")
  return place if place.exists() else model
