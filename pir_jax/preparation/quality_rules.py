"""Is a clip good enough to train on? Thresholds, and words for each failure.

Figures are those of `appraisal.Appraisal` as a dict.
"""

import dataclasses
from typing import Any

from pir_jax.preparation import figures

LEVELS = ("good", "usable", "rejected")


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Where a figure becomes a doubt (`usable`) or too bad (`rejected`).

  All of them are our choices: the paper names none. `usable` clips can be
  trained on, with the loss that the reason names. Shares are of 1, sizes in
  pixels of the source.

  Attributes:
    shortest: seconds with a measured face; less is rejected.
    covered, barely_covered: share of frames with a measured face.
    large, too_small: median face height.
    sharp, too_blurred: face height in pixels that carry detail.
    fitted, misfitted: RMS fit error as a share of face height.
    worst: fit error of the worst frame.
    profile: degrees of yaw, 5th to 95th percentile.
    sounding: seconds of sound as a share of the picture's.
    quiet: LUFS.
    clipped: share of samples at the peak.
    clear: decibels between speech and background.
    talking: share of the time that is silence.
    in_step, out_of_step: shift of the sound in seconds, either way.
  """

  shortest: float = 1.0
  covered: float = 0.9
  barely_covered: float = 0.5
  large: float = 96.0
  too_small: float = 32.0
  sharp: float = 64.0
  too_blurred: float = 24.0
  fitted: float = 0.025
  misfitted: float = 0.05
  worst: float = 0.10
  profile: float = 45.0
  sounding: float = 0.9
  quiet: float = -40.0
  clipped: float = 0.005
  clear: float = 15.0
  talking: float = 0.7
  in_step: float = 0.08
  out_of_step: float = 0.16


def judge(
  values: dict[str, Any], config: Config | None = None
) -> tuple[str, list[dict[str, str]]]:
  """The verdict and its reasons, worst first; see `appraisal.Appraisal`."""
  config = config or Config()
  reasons = [
    dict(figure=figure, level=level, what=what, remedy=remedy)
    for figure, level, what, remedy in (
      *_of_the_face(values, config),
      *_of_the_fit(values, config),
      *_of_the_sound(values, config),
      *_of_the_shift(values, config),
    )
  ]
  reasons.sort(key=lambda reason: -LEVELS.index(reason["level"]))
  return (reasons[0]["level"] if reasons else LEVELS[0]), reasons


def lines(values: dict[str, Any]) -> list[str]:
  """A clip's figures, verdict and reasons for a terminal."""
  found = [
    f"{figure.title}: {figure.text}" for figure in figures.describe(values)
  ]
  found.append(f"verdict: {values['verdict']}")
  for reason in values["reasons"]:
    found.append(f"  {reason['what']} {reason['remedy']}")
  return found


def _grade(value, doubt, limit, *, least=True) -> str | None:
  """The level to which a value leads, None where it is fine or unknown."""
  if value is None:
    return None
  sign = 1 if least else -1
  if sign * value < sign * limit:
    return LEVELS[2]
  return LEVELS[1] if sign * value < sign * doubt else None


def _of_the_face(v, config):
  seconds = v["measured"] * v["seconds"]
  if seconds < config.shortest:
    yield (
      "measured",
      LEVELS[2],
      f"The face is seen for {seconds:.1f} s only.",
      "Give a longer clip, or choose another face with `--face`.",
    )
  level = _grade(v["measured"], config.covered, config.barely_covered)
  if level:
    yield (
      "measured",
      level,
      f"The face is seen in {100 * v['measured']:.0f} % of the frames only.",
      "Cut away the parts without it; if someone else was followed, choose "
      "with `--face`.",
    )
  level = _grade(v["face_height"], config.large, config.too_small)
  if level:
    yield (
      "face_height",
      level,
      f"The face is only {v['face_height']:.0f} px high.",
      "Use footage of a higher resolution or a closer shot; do not enlarge.",
    )
  blurred = _grade(v["effective_height"], config.sharp, config.too_blurred)
  # A small face is told once.
  if blurred and blurred != level:
    level = blurred
    yield (
      "detail",
      level,
      f"The face carries no more detail than one of "
      f"{v['effective_height']:.0f} px: it is out of focus, strongly "
      "compressed, enlarged, or far away.",
      "Use the original recording, not a copy from a messenger or a "
      "platform's small version.",
    )


def _of_the_fit(v, config):
  level = _grade(v["fit_error"], config.fitted, config.misfitted, least=False)
  if level:
    yield (
      "fit_error",
      level,
      f"The face model misses the face by {100 * v['fit_error']:.1f} % of its "
      "height.",
      "Look at the strip: hands, glasses or strong side light may hide the "
      "face; cut those parts away.",
    )
  elif v["worst_error"] is not None and v["worst_error"] > config.worst:
    yield (
      "worst_error",
      LEVELS[1],
      f"At {v['worst_time']:.1f} s the face model misses the face by "
      f"{100 * v['worst_error']:.0f} % of its height.",
      "Look at that frame in the strip, and cut the moment away if something "
      "hides the face.",
    )
  if v["yaw"] and max(map(abs, v["yaw"])) > config.profile:
    yield (
      "yaw",
      LEVELS[1],
      f"The head turns by {max(map(abs, v['yaw'])):.0f} degrees, where half "
      "of the face is hidden.",
      "Prefer parts in which both eyes are seen.",
    )


def _of_the_sound(v, config):
  if not v["sound_seconds"]:
    yield (
      "sound_seconds",
      LEVELS[1],
      "There is no sound.",
      "The first network cannot learn from this clip; the others can.",
    )
    return
  if v["sound_seconds"] < config.sounding * v["seconds"]:
    yield (
      "sound_seconds",
      LEVELS[1],
      f"The sound lasts {v['sound_seconds']:.1f} s, the picture "
      f"{v['seconds']:.1f} s.",
      "Only the part with sound teaches the first network; export again if "
      "there should be more.",
    )
  if v["loudness"] is None or v["loudness"] < config.quiet:
    what = "The sound is silent."
    if v["loudness"] is not None:
      what = f"The sound is very quiet ({v['loudness']:.0f} LUFS)."
    yield (
      "loudness",
      LEVELS[1],
      what,
      "Check that the right sound track is in the file.",
    )
    return
  if v["clipped"] > config.clipped:
    yield (
      "clipped",
      LEVELS[1],
      f"The sound is clipped: {100 * v['clipped']:.1f} % of it lies at the "
      "peak.",
      "Use a recording with a lower level; clipping cannot be undone.",
    )
  if v["speech"] - v["noise"] < config.clear:
    yield (
      "noise",
      LEVELS[1],
      f"The background is only {v['speech'] - v['noise']:.0f} dB below the "
      "speech.",
      "Music or noise is heard as speech: use a cleaner recording.",
    )
  if v["silence"] > config.talking:
    yield (
      "silence",
      LEVELS[1],
      f"{100 * v['silence']:.0f} % of the sound are pauses.",
      "Add clips in which the person speaks more.",
    )


def _of_the_shift(v, config):
  if v["shift"] is None:
    return
  level = _grade(
    abs(v["shift"]), config.in_step, config.out_of_step, least=False
  )
  if not level:
    return
  late = v["shift"] > 0
  yield (
    "shift",
    level,
    f"The sound comes {1000 * abs(v['shift']):.0f} ms "
    f"{'after' if late else 'before'} the lips.",
    "Move it back in place and prepare again: `ffmpeg -i CLIP -itsoffset "
    f"{-v['shift']:.3f} -i CLIP -map 0:v -map 1:a -c copy NEW`.",
  )
