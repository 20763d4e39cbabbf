"""Brows and blinks of a reenacted face, which hardly depend on speech.

t frames, e expression coefficients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pir_jax.types import InputError

BROWS = ("source", "speech")
BLINKS = ("source", "speech", "generated", "none")
MADE = ("generated", "none")  # From the eyes in all of the source.
_BROW, _EYE, _BLINK, _WIDE = "brow", "eye", "eyeBlink", "eyeWide"
# Of adults in conversation, a minute (Bentivoglio et al. 1997).
RATE = 26
_LEAST_SECONDS = 0.7  # Between two blinks.
# Lids fall in a tenth of a second and rise in two (Evinger et al. 1991).
_FALL, _RISE = 0.1, 0.2
# Coefficient from which an eye counts as shut somewhere in the source.
_SHUT = 0.5


class UpperFace(NamedTuple):
  """Expressions with brows and blinks as asked for.

  Attributes:
    expression: of each frame to be made.
    kept: coefficients that are to be the source frame's own.
  """

  expression: Float[np.ndarray, "t e"]
  kept: Bool[np.ndarray, "e"]


def check(brows: str, blinks: str, region: str) -> None:
  """Refuses what the masked region cannot show.

  Args:
    brows: one of BROWS.
    blinks: one of BLINKS.
    region: of the mask, see `masks.Config`.

  Raises:
    InputError: there is no such way, or eyes and brows are not inpainted.
  """
  for name, way, ways in (("brows", brows, BROWS), ("blinks", blinks, BLINKS)):
    if way not in ways:
      raise InputError(f"{name}={way} must be one of {', '.join(ways)}.")
    if way != "source" and region != "face":
      raise InputError(
        f"{name}={way} needs the eyes to be inpainted, and these networks "
        "leave them alone: prepare with --mask_region=face and train again."
      )


def apply(
  predicted: Float[np.ndarray, "t e"],
  names: Sequence[str],
  seconds: Float[np.ndarray, "t"],
  source: Float[np.ndarray, "_ e"],
  brows: str = "source",
  blinks: str = "source",
) -> UpperFace:
  """Takes brows and blinks from where they are asked for.

  A face model whose coefficients have no names takes all from the speech.

  Args:
    predicted: from the speech, for each frame to be made.
    names: of the coefficients.
    seconds: when each frame is shown.
    source: expressions of the source's frames with a face.
    brows: one of BROWS.
    blinks: one of BLINKS; "none" keeps the eyes as open as they mostly are.

  Raises:
    InputError: no coefficient is named that could blink as asked for.
  """
  expression = predicted.copy()
  # All of the eyes: how far they are open is shared between blink and wide.
  # Not the cheeks: in a short clip they go with the mouth.
  is_brow, is_eye, is_blink, is_wide = (
    np.array([name.startswith(part) for name in names])
    for part in (_BROW, _EYE, _BLINK, _WIDE)
  )
  if blinks in MADE:
    if not is_blink.any():
      raise InputError(
        f"blinks={blinks} needs a face model that names its coefficients, "
        f"{_BLINK} among them: say blinks=speech."
      )
    opened, shut = np.median(source, 0), source.max(0)
    shut = np.where(shut > _SHUT, shut, 1.0)
    # What is shut is not wide, and looks where it looked.
    shut = np.where(is_blink, shut, np.where(is_wide, 0.0, opened))
    closed = blink_curve(seconds) if blinks == "generated" else 0 * seconds
    curve = opened + closed[:, None] * (shut - opened)
    expression[:, is_eye] = curve[:, is_eye]
  kept = np.zeros(len(names), bool)
  kept |= is_brow & (brows == "source")
  kept |= is_eye & (blinks == "source")
  return UpperFace(expression, kept)


def blink_curve(
  seconds: Float[np.ndarray, "t"], seed: int = 0
) -> Float[np.ndarray, "t"]:
  """Generates blinks at a human rate: 0 is open, 1 shut.

  The gaps between them are exponential beyond a least one.

  Args:
    seconds: at which it is sampled, from 0.
    seed: of the times.
  """
  random = np.random.default_rng(seed)
  mean = 60 / RATE - _LEAST_SECONDS
  closed, at = np.zeros(len(seconds)), random.exponential(mean)
  while len(seconds) and at < seconds[-1] + _FALL:
    since = (seconds - at) / np.where(seconds < at, _FALL, _RISE)
    bump = 0.5 * (1 + np.cos(np.pi * np.clip(since, -1, 1)))
    closed = np.maximum(closed, bump)
    at += _LEAST_SECONDS + random.exponential(mean)
  return closed
