"""A clip's figures in words: for the terminal and for the page.

The figures are those of `appraisal.Appraisal` as a dict.
"""

from typing import Any, NamedTuple

UNKNOWN = "unknown"


class Figure(NamedTuple):
  """One thing that is known of a clip.

  Attributes:
    names: attributes of the appraisal that it shows; a reason that names one
      of them marks it.
    title: of it.
    text: its value with a unit.
    meaning: what it says, for someone who has not met it before.
  """

  names: tuple[str, ...]
  title: str
  text: str
  meaning: str


def describe(v: dict[str, Any]) -> list[Figure]:
  """Every figure of a clip, picture first."""
  return [
    *_of_the_picture(v),
    *_of_the_face(v),
    *_of_the_fit(v),
    *_of_the_sound(v),
  ]


def _of_the_picture(v) -> list[Figure]:
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
      "Face found",
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


def _of_the_face(v) -> list[Figure]:
  size = sharp = UNKNOWN
  if v["face_height"] is not None:
    size = f"{v['face_height']:.0f} px ({v['smallest_face']:.0f} at the least)"
  if v["detail"] is not None:
    sharp = (
      f"detail down to {v['detail']:.1f} px; worth "
      f"{v['effective_height']:.0f} px"
    )
  turn = UNKNOWN
  if v["yaw"] is not None:
    turn = ", ".join(
      f"{name} {_degrees(*v[key])}"
      for name, key in (
        ("sideways", "yaw"),
        ("up and down", "pitch"),
        ("tilt", "roll"),
      )
    )
  blinks = UNKNOWN if v["blinks"] is None else f"{v['blinks']:.0f} a minute"
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
  ]


def _of_the_fit(v) -> list[Figure]:
  text = UNKNOWN
  if v["fit_error"] is not None:
    text = (
      f"{100 * v['fit_error']:.2f} % of face height; "
      f"{100 * v['worst_error']:.1f} % at worst, at {v['worst_time']:.1f} s"
    )
  return [
    Figure(
      ("fit_error", "worst_error"),
      "Fit error",
      text,
      "How far the face model lies from the points that were found on the "
      "face, on average. About 1 % is good; a peak in the curve is a moment in "
      "which something went wrong.",
    )
  ]


def _of_the_sound(v) -> list[Figure]:
  if not v["sound_seconds"]:
    return [
      Figure(("sound_seconds",), "Sound", "none", "The file holds no sound.")
    ]
  loud = noise = UNKNOWN
  if v["loudness"] is not None:
    loud = f"{v['loudness']:.0f} LUFS, {100 * v['clipped']:.2f} % at the peak"
  if v["noise"] is not None:
    noise = (
      f"{v['speech'] - v['noise']:.0f} dB below the speech "
      f"({v['noise']:.0f} dB of full scale)"
    )
  pauses = UNKNOWN if v["silence"] is None else _percent(v["silence"])
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
    _shift(v),
  ]


def _shift(v) -> Figure:
  text = f"{UNKNOWN}: {v['shift_unknown']}"
  if v["shift"] is not None:
    side = "after" if v["shift"] > 0 else "before"
    text = (
      f"{1000 * abs(v['shift']):.0f} ms {side} the lips, "
      f"plus or minus {1000 * v['shift_error']:.0f} ms"
    )
  return Figure(
    ("shift",),
    "Sound comes",
    text,
    "From the moments in which the lips should close (p, b, m) or part. Within "
    f"80 ms is in step. It rests on {v['num_phones']} recognised sounds, "
    f"{v['num_closures']} of them p, b or m.",
  )


def _percent(share: float) -> str:
  return f"{100 * share:.0f} %"


def _degrees(low: float, high: float) -> str:
  return f"{low:.0f} to {high:.0f}°"
