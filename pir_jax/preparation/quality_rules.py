"""Grades a clip's figures, and words them for the terminal and the report.

`v` holds the figures of `quality.Quality` as a dict.
"""

import dataclasses
from typing import Any, NamedTuple

LEVELS = ("good", "usable", "rejected")
UNKNOWN = "unknown"


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


class Figure(NamedTuple):
  """One line of what is known of a clip.

  Attributes:
    names: attributes of `quality.Quality` that it shows; a reason that names
      one of them marks it.
    title: of it.
    text: its value with a unit.
    meaning: an explanation for someone new to it.
  """

  names: tuple[str, ...]
  title: str
  text: str
  meaning: str


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


def lines(v: dict[str, Any]) -> list[str]:
  """Returns figures, level and reasons as lines for a terminal."""
  return [
    *(f"{figure.title}: {figure.text}" for figure in figures(v)),
    f"quality: {v['level']}",
    *(f"  {reason['what']} {reason['remedy']}" for reason in v["reasons"]),
  ]


def figures(v: dict[str, Any]) -> list[Figure]:
  """Returns every figure of a clip, picture first."""
  sound = _sound_figures(v) if v["sound_seconds"] else [_NO_SOUND]
  return [*_picture_figures(v), *_face_figures(v), *sound]


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
      f"The face is seen in {_percent(v['measured'])} of the frames only.",
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
      f"The face model misses the face by {_percent(v['fit_error'], 1)} of its "
      "height.",
      "Look at the strip: hands, glasses or strong side light may hide the "
      "face; cut those parts away.",
    )
  elif v["worst_error"] is not None and v["worst_error"] > config.worst_error:
    yield (
      "worst_error",
      LEVELS[1],
      f"At {v['worst_time']:.1f} s the face model misses the face by "
      f"{_percent(v['worst_error'])} of its height.",
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
      f"The sound is clipped: {_percent(v['clipped'], 1)} of it lies at the "
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
      f"{_percent(v['silence'])} of the sound are pauses.",
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
      f"The sound comes {1000 * abs(shift):.0f} ms {_side(shift)} the lips.",
      "Move it back in place and prepare again: `ffmpeg -i CLIP -itsoffset "
      f"{-shift:.3f} -i CLIP -map 0:v -map 1:a -c copy NEW`.",
    )


def _picture_figures(v) -> list[Figure]:
  shots, people = v["num_shots"], v["num_people"]
  gap = ""
  if v["longest_gap"]:
    gap = f" The longest gap here is {v['longest_gap']:.1f} s."
  return [
    Figure(
      ("seconds", "rate", "width", "height"),
      "Video",
      f"{v['seconds']:.1f} s, {v['width']}x{v['height']}, "
      f"{v['rate']:g} frames a second",
      "As the file holds it. All clips of a person together should last a "
      "minute or more.",
    ),
    Figure(
      ("measured", "interpolated", "absent"),
      "Face seen",
      f"{_percent(v['measured'])} of the frames, "
      f"{_percent(v['interpolated'])} guessed, {_percent(v['absent'])} without",
      "Only frames in which the face was seen are trained on. Gaps of less "
      "than half a second are filled from their neighbours (guessed); longer "
      f"ones are left out.{gap}",
    ),
    Figure(
      ("num_shots", "num_people"),
      "Shots and people",
      f"{shots} {'shot' if shots == 1 else 'shots'}, "
      f"{people} {'person' if people == 1 else 'people'}",
      "A shot ends where the picture is cut. With several people one is "
      "followed: see in the strip that it is the right one, or choose another "
      "with `--face`.",
    ),
  ]


def _face_figures(v) -> list[Figure]:
  size = sharp = turn = blinks = fit = UNKNOWN
  if v["face_height"] is not None:
    size = f"{v['face_height']:.0f} px ({v['smallest_face']:.0f} at the least)"
  if v["detail"] is not None:
    sharp = (
      f"detail down to {v['detail']:.1f} px; worth "
      f"{v['effective_height']:.0f} px"
    )
  if v["yaw"] is not None:
    axes = dict(yaw="sideways", pitch="up and down", roll="tilt")
    turn = ", ".join(
      f"{name} {v[axis][0]:.0f} to {v[axis][1]:.0f}°"
      for axis, name in axes.items()
    )
  if v["blinks"] is not None:
    blinks = f"{v['blinks']:.0f} a minute"
  if v["fit_error"] is not None:
    fit = (
      f"{_percent(v['fit_error'], 2)} of face height; "
      f"{_percent(v['worst_error'], 1)} at worst, at {v['worst_time']:.1f} s"
    )
  return [
    Figure(
      ("face_height", "smallest_face"),
      "Face size",
      size,
      "Height from chin to forehead in the video's own pixels. The demo learns "
      "windows of 128 px, the full size 512 px; a smaller face is enlarged and "
      "stays soft.",
    ),
    Figure(
      ("detail", "effective_height"),
      "Sharpness",
      sharp,
      "The size of the finest detail on the face, and the height of a "
      "perfectly sharp face that shows as much. 1 px is as sharp as can be; 2 "
      "is usual; 4 and more is blurred, or was enlarged from a smaller video.",
    ),
    Figure(
      ("yaw", "pitch", "roll"),
      "Head turns",
      turn,
      "Degrees away from looking straight into the camera; nine tenths of the "
      "frames lie between the two. What was never seen cannot be shown later.",
    ),
    Figure(
      ("blinks",),
      "Blinks",
      blinks,
      "Five to thirty a minute are usual in speech. Unknown where the eyes are "
      "too small, or frames too far apart, to tell.",
    ),
    Figure(
      ("fit_error", "worst_error"),
      "Fit error",
      fit,
      "How far the face model lies from the points that were detected on the "
      "face, on average. About 1 % is good; a peak in the curve is a moment in "
      "which something went wrong.",
    ),
  ]


_NO_SOUND = Figure(
  ("sound_seconds",), "Sound", "none", "The file holds no sound."
)


def _sound_figures(v) -> list[Figure]:
  pauses = loud = noise = UNKNOWN
  shift = f"{UNKNOWN}: {v['shift_unknown']}"
  if v["silence"] is not None:
    pauses = _percent(v["silence"])
  if v["loudness"] is not None:
    loud = f"{v['loudness']:.0f} LUFS, {_percent(v['clipped'], 2)} at the peak"
  if v["noise"] is not None:
    noise = (
      f"{v['speech'] - v['noise']:.0f} dB below the speech "
      f"({v['noise']:.0f} dB of full scale)"
    )
  if v["shift"] is not None:
    shift = (
      f"{1000 * abs(v['shift']):.0f} ms {_side(v['shift'])} the lips, "
      f"plus or minus {1000 * v['shift_error']:.0f} ms"
    )
  return [
    Figure(
      ("sound_seconds", "silence"),
      "Sound",
      f"{v['sound_seconds']:.1f} s at {v['sound_rate'] / 1000:g} kHz, "
      f"{pauses} pauses",
      "Speech from which the first network learns. A few pauses are good: they "
      "teach it to close the mouth.",
    ),
    Figure(
      ("loudness", "clipped"),
      "Loudness",
      loud,
      "After ITU-R BS.1770, as broadcasters measure it: -16 to -30 is usual, "
      "and the level is evened out before training. Many samples at the peak "
      "mean that loud sounds were cut off.",
    ),
    Figure(
      ("noise",),
      "Background",
      noise,
      "The quietest tenth of the sound against its loudest tenth: noise, echo "
      "and music that the network would take for speech. More is better.",
    ),
    Figure(
      ("shift",),
      "Sound comes",
      shift,
      "From the moments in which the lips should close (p, b, m) or part. "
      f"Within 80 ms is in step. It rests on {v['num_phones']} recognised "
      f"sounds, {v['num_closures']} of them p, b or m.",
    ),
  ]


def _percent(share: float, digits: int = 0) -> str:
  return f"{100 * share:.{digits}f} %"


def _side(shift: float) -> str:
  return "after" if shift > 0 else "before"
