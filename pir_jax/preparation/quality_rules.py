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
    min_seconds: that can be learnt from; less is rejected.
    measured: least share of frames with a measured face.
    hidden, cut, text: largest share of the frames with a face in which the lips
      are hidden, the border cuts the face, or text lies over it.
    light: least luma of the lower face.
    white: largest share of it that is burnt out.
    even: largest share of it without any shading: cartoons have 0.39 to 0.70,
      photographs up to 0.25.
    tilt: largest tilt of the head, degrees, from which a video lies on its side
      or upside down.
    lip_motion: least range of the lips' opening, as a share of face height.
    noise_level: largest noise of the picture, grey levels.
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
  hidden: tuple[float, float] = (0.02, 0.5)
  cut: tuple[float, float] = (0.02, 0.5)
  text: tuple[float, float] = (0.05, 0.5)
  light: tuple[float, float] = (35.0, 18.0)
  white: tuple[float, float] = (0.15, 0.4)
  even: float = 0.32
  tilt: float = 50.0
  lip_motion: float = 0.008
  noise_level: tuple[float, float] = (8.0, 20.0)
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
    for rule in (
      _sight_reasons,  # First: what is upside down explains the rest.
      _face_reasons,
      _fit_reasons,
      _sound_reasons,
      _shift_reasons,
    )
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


def _sight_reasons(v, config):
  """What the pictures show, whatever the mesh has."""
  if v["tilt"] is None:
    return
  if abs(v["tilt"]) > config.tilt:
    how, turn = (
      "lying on its side",
      "transpose=1" if v["tilt"] < 0 else "transpose=2",
    )
    if abs(v["tilt"]) > 135:
      how, turn = "upside down", "hflip,vflip"
    yield (
      "tilt",
      LEVELS[2],
      f"The head is {how}.",
      f"Turn the video: `ffmpeg -i CLIP -vf {turn} NEW`.",
    )
  seconds = v["learnable"] * v["seconds"]
  if seconds < config.min_seconds <= v["measured"] * v["seconds"]:
    yield (
      "learnable",
      LEVELS[2],
      f"Only {seconds:.1f} s show enough of the face to learn from.",
      "See the other reasons for what is wrong with the rest.",
    )
  whats = dict(
    hidden=("The mouth is hidden", "a hand, a microphone or a mask covers it"),
    cut=("The border of the picture cuts the face", "the head leaves it"),
    text=("Text lies over the lower face", "subtitles are part of the picture"),
  )
  for name, (what, why) in whats.items():
    if level := _level(v[name], getattr(config, name), least=False):
      yield (
        name,
        level,
        f"{what} in {percent(v[name])} of the frames ({_spans(v, name)}): "
        f"{why}.",
        "Such frames are left out: use a recording without it.",
      )
  if level := _level(v["light"], config.light):
    yield (
      "light",
      level,
      f"The face is nearly black: {v['light']:.0f} of 255 in the middle.",
      "Use a recording with light on the face; brightening brings out noise.",
    )
  if level := _level(v["white"], config.white, least=False):
    yield (
      "white",
      level,
      f"The face is overexposed: {percent(v['white'])} of its lower half is "
      "pure white.",
      "Use a recording with less light or exposure; what is white cannot be "
      "brought back.",
    )
  if level := _level(v["noise_level"], config.noise_level, least=False):
    yield (
      "noise_level",
      level,
      f"The picture is noisy: {v['noise_level']:.0f} grey levels on the face.",
      "Use a recording with more light.",
    )
  # What covers a face may be even, and what is burnt out is.
  plain = v["hidden"] < config.hidden[1] and v["white"] < config.white[0]
  if plain and v["even"] > config.even:
    yield (
      "even",
      LEVELS[2],
      f"The face is no photograph: {percent(v['even'])} of it has no shading.",
      "Use a video of a person, not a cartoon.",
    )
  if v["lip_motion"] is not None and v["lip_motion"] < config.lip_motion:
    yield (
      "lip_motion",
      LEVELS[2],
      "The lips never move: the picture is a still, or the person is silent.",
      "Use a video in which the person speaks.",
    )


def _spans(v, name: str) -> str:
  """Words the times of a fault: the first three, and how many more."""
  spans = v[f"{name}_times"]
  text = ", ".join(f"{a:.1f} to {b:.1f} s" for a, b in spans[:3])
  more = len(spans) - 3
  return f"{text} and {more} more times" if more > 0 else text


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
