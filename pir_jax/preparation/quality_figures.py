"""Words a clip's figures for the terminal and the report.

`v` holds the figures of `quality.Quality` as a dict.
"""

from typing import Any, NamedTuple

from pir_jax.preparation.quality_rules import percent, side

UNKNOWN = "unknown"


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
  pictures = [*_picture_figures(v), *_sight_figures(v), *_face_figures(v)]
  return [*pictures, *sound]


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
    *_notes(v),
    Figure(
      ("measured", "interpolated", "absent"),
      "Face seen",
      f"{percent(v['measured'])} of the frames, "
      f"{percent(v['interpolated'])} guessed, {percent(v['absent'])} without",
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


def _sight_figures(v) -> list[Figure]:
  """What the pictures show; nothing for clips of before it was measured."""
  if v.get("tilt") is None:
    return []
  names = dict(hidden="lips hidden", cut="cut by the border", text="under text")
  parts = [f"{percent(v[name])} {word}" for name, word in names.items()]
  light = f"middle {v['light']:.0f} of 255, {percent(v['white'])} burnt out"
  if v["noise_level"] is not None:
    light += f", noise {v['noise_level']:.1f}"
  return [
    Figure(
      ("learnable", *names),
      "Face to learn from",
      f"{percent(v['learnable'])} of the frames; {', '.join(parts)}",
      "Frames in which something hides the mouth are left out, whatever the "
      "points on it say: these are guessed where nothing is seen.",
    ),
    Figure(
      ("light", "white", "noise_level"),
      "Light on the face",
      light,
      "Grey levels of the lower face. Between 60 and 180 are usual; what is "
      "burnt out or drowned in noise cannot be learnt.",
    ),
    Figure(
      ("tilt", "even", "lip_motion"),
      "A person who speaks",
      f"lips move by {percent(v['lip_motion'], 1)} of face height, tilt "
      f"{v['tilt']:.0f}°, {percent(v['even'])} of the face even",
      "Lips of speakers move by 2 to 10 %; a cartoon is even in half of the "
      "face, a photograph in a quarter at most.",
    ),
  ]


def _notes(v) -> list[Figure]:
  if not v.get("remarks"):
    return []
  return [
    Figure(
      ("remarks",),
      "Noted",
      "; ".join(v["remarks"]),
      "What had to be converted, and what is odd about the sound. The networks "
      "see whole frames with square pixels, in the colours of a usual screen.",
    )
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
      f"{percent(v['fit_error'], 2)} of face height; "
      f"{percent(v['worst_error'], 1)} at worst, at {v['worst_time']:.1f} s"
    )
  return [
    Figure(
      ("face_height", "smallest_face"),
      "Face size",
      size,
      "Height from chin to forehead in the video's own pixels. The demo learns "
      "windows of 192 px, the full size 512 px; a smaller face is enlarged and "
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
    pauses = percent(v["silence"])
  if v["loudness"] is not None:
    loud = f"{v['loudness']:.0f} LUFS, {percent(v['clipped'], 2)} at the peak"
  if v["noise"] is not None:
    noise = (
      f"{v['speech'] - v['noise']:.0f} dB below the speech "
      f"({v['noise']:.0f} dB of full scale)"
    )
  if v["shift"] is not None:
    shift = (
      f"{1000 * abs(v['shift']):.0f} ms {side(v['shift'])} the lips, "
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
