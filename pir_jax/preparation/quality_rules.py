"""Grades a clip by its figures: levels, reasons, remedies.

`v` holds the figures of `quality.Quality` as a dict.
"""

import dataclasses
from typing import Any

LEVELS = ("good", "usable", "rejected")


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Limits beyond which a figure makes a clip (usable, rejected).

  All are our choices: the paper names none. A single limit never rejects a
  clip, except `min_seconds`. Usable clips can be trained on, at the cost that
  the reason names. Shares are of 1, sizes in pixels of the source.

  Attributes:
    min_seconds: with a measured face; less is rejected.
    measured: least share of frames with a measured face.
    face_height: least median.
    effective_height: least face height in pixels that carry detail.
    fit_error: largest RMS fit error as a share of face height.
    worst_error: largest fit error of a single frame.
    yaw: largest turn in degrees, 5th to 95th percentile.
    sound_share: least seconds of sound as a share of the picture's.
    loudness: least LUFS.
    clipped: largest share of samples at the peak.
    speech_to_noise: least decibels between speech and background.
    silence: largest share of the time without speech.
    shift: largest shift of the sound in seconds, either way.
  """

  min_seconds: float = 1.0
  measured: tuple[float, float] = (0.9, 0.5)
  face_height: tuple[float, float] = (96.0, 32.0)
  effective_height: tuple[float, float] = (64.0, 24.0)
  fit_error: tuple[float, float] = (0.025, 0.05)
  worst_error: float = 0.10
  yaw: float = 45.0
  sound_share: float = 0.9
  loudness: float = -40.0
  clipped: float = 0.005
  speech_to_noise: float = 15.0
  silence: float = 0.7
  shift: tuple[float, float] = (0.08, 0.16)


def grade(
  v: dict[str, Any], config: Config | None = None
) -> tuple[str, list[dict[str, str]]]:
  """Returns the level and its reasons, worst first; see `quality.Quality`."""
  config = config or Config()
  reasons = [
    dict(zip(("figure", "level", "what", "remedy"), reason, strict=True))
    for rule in (_face_reasons, _fit_reasons, _sound_reasons, _shift_reasons)
    for reason in rule(v, config)
  ]
  reasons.sort(key=lambda reason: -LEVELS.index(reason["level"]))
  return (reasons[0]["level"] if reasons else LEVELS[0]), reasons


def _level(value, limits: tuple[float, float], *, least=True) -> str | None:
  """Returns the level of a value; None where it is fine or unknown."""
  if value is None:
    return None
  sign = 1 if least else -1
  beyond = sum(sign * value < sign * limit for limit in limits)
  return LEVELS[beyond] if beyond else None


def _face_reasons(v, config):
  seconds = v["measured"] * v["seconds"]
  if seconds < config.min_seconds:
    yield (
      "measured",
      LEVELS[2],
      f"The face is seen for {seconds:.1f} s only.",
      "Use a longer clip, or choose another face with `--face`.",
    )
  if level := _level(v["measured"], config.measured):
    yield (
      "measured",
      level,
      f"The face is seen in {percent(v['measured'])} of the frames only.",
      "Cut away the parts without it; if someone else was followed, choose "
      "with `--face`.",
    )
  small = _level(v["face_height"], config.face_height)
  if small:
    yield (
      "face_height",
      small,
      f"The face is only {v['face_height']:.0f} px high.",
      "Use footage of a higher resolution or a closer shot; do not enlarge.",
    )
  blurred = _level(v["effective_height"], config.effective_height)
  # A small face is reported once.
  if blurred and blurred != small:
    yield (
      "detail",
      blurred,
      f"The face carries no more detail than one of "
      f"{v['effective_height']:.0f} px: it is out of focus, strongly "
      "compressed, enlarged, or far away.",
      "Use the original recording, not a copy from a messenger or a "
      "platform's small version.",
    )


def _fit_reasons(v, config):
  if level := _level(v["fit_error"], config.fit_error, least=False):
    yield (
      "fit_error",
      level,
      f"The face model misses the face by {percent(v['fit_error'], 1)} of its "
      "height.",
      "Look at the strip: hands, glasses or strong side light may hide the "
      "face; cut those parts away.",
    )
  elif v["worst_error"] is not None and v["worst_error"] > config.worst_error:
    yield (
      "worst_error",
      LEVELS[1],
      f"At {v['worst_time']:.1f} s the face model misses the face by "
      f"{percent(v['worst_error'])} of its height.",
      "Look at that frame in the strip, and cut the moment away if something "
      "hides the face.",
    )
  yaw = max(map(abs, v["yaw"] or [0.0]))
  if yaw > config.yaw:
    yield (
      "yaw",
      LEVELS[1],
      f"The head turns by {yaw:.0f} degrees, where half of the face is hidden.",
      "Prefer parts in which both eyes are seen.",
    )


def _sound_reasons(v, config):
  def usable(figure, what, remedy):
    return figure, LEVELS[1], what, remedy

  if not v["sound_seconds"]:
    yield usable(
      "sound_seconds",
      "There is no sound.",
      "The first network cannot learn from this clip; the others can.",
    )
    return
  if v["sound_seconds"] < config.sound_share * v["seconds"]:
    yield usable(
      "sound_seconds",
      f"The sound lasts {v['sound_seconds']:.1f} s, the picture "
      f"{v['seconds']:.1f} s.",
      "Only the part with sound teaches the first network; export again if "
      "there should be more.",
    )
  if v["loudness"] is None or v["loudness"] < config.loudness:
    what = "The sound is silent."
    if v["loudness"] is not None:
      what = f"The sound is very quiet ({v['loudness']:.0f} LUFS)."
    remedy = "Check that the right sound track is in the file."
    yield usable("loudness", what, remedy)
    return
  if v["clipped"] > config.clipped:
    yield usable(
      "clipped",
      f"The sound is clipped: {percent(v['clipped'], 1)} of it lies at the "
      "peak.",
      "Use a recording with a lower level; clipping cannot be undone.",
    )
  if v["speech"] - v["noise"] < config.speech_to_noise:
    yield usable(
      "noise",
      f"The background is only {v['speech'] - v['noise']:.0f} dB below the "
      "speech.",
      "Music or noise is taken for speech: use a cleaner recording.",
    )
  if v["silence"] > config.silence:
    yield usable(
      "silence",
      f"{percent(v['silence'])} of the sound are pauses.",
      "Add clips in which the person speaks more.",
    )


def _shift_reasons(v, config):
  shift = v["shift"]
  if shift is None:
    return
  if level := _level(abs(shift), config.shift, least=False):
    yield (
      "shift",
      level,
      f"The sound comes {1000 * abs(shift):.0f} ms {side(shift)} the lips.",
      "Move it back in place and prepare again: `ffmpeg -i CLIP -itsoffset "
      f"{-shift:.3f} -i CLIP -map 0:v -map 1:a -c copy NEW`.",
    )


def percent(share: float, digits: int = 0) -> str:
  """Returns a share as a text such as "12 %"."""
  return f"{100 * share:.{digits}f} %"


def side(shift: float) -> str:
  """Returns on which side of the lips a shifted sound comes."""
  return "after" if shift > 0 else "before"
