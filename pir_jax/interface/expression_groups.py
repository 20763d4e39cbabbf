"""Names of expressions in groups, and what is usually tried with them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from pir_jax.inference import viewer as viewer_lib
from pir_jax.types import FaceSpace

REST = "rest"
# Beginnings of the names of ARKit's 52 units, which the open head has.
_PREFIXES = {
  "jaw": ("jaw",),
  "lips": ("mouth",),
  "eyes": ("eye",),
  "brows": ("brow",),
}
_PRESETS: dict[str, dict[str, float]] = {
  "closed": {"jawOpen": 0.0, "mouthClose": 0.0, "mouthFunnel": 0.0},
  "open": {"jawOpen": 0.8},
  "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
  "pucker": {"mouthPucker": 0.9, "mouthFunnel": 0.3},
  "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
  "brows up": {"browInnerUp": 1.0},
}
# Standard deviations to either side of the mean, where coefficients have no
# scale of their own.
_STDS = 3.0


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
  """Jaw, lips, eyes, brows and rest, those that are empty left out."""
  groups = {group: [] for group in (*_PREFIXES, REST)}
  for name in names:
    fits = (g for g, starts in _PREFIXES.items() if name.startswith(starts))
    groups[next(fits, REST)].append(name)
  return {group: members for group, members in groups.items() if members}


def presets(names: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
  """Raw values over the mean, of the presets whose names are all known."""
  return {
    title: values
    for title, values in _PRESETS.items()
    if set(values) <= set(names)
  }


def slider_ranges(
  space: FaceSpace, mean: Float[np.ndarray, "e"]
) -> list[tuple[float, float]]:
  """Least and largest raw value of each slider; the mean is inside."""
  mean = np.asarray(mean, float)
  if len(grouped(space.expression_names)) > 1:  # Units of about 0 to 1.
    low = np.full_like(mean, viewer_lib.USUAL[0])
    high = np.full_like(mean, viewer_lib.USUAL[1])
  else:
    around = _STDS * np.asarray(space.expression_scale, float)
    low, high = mean - around, mean + around
  low, high = np.minimum(low, mean), np.maximum(high, mean)
  # To whole steps of the sliders, outwards.
  low, high = np.floor(low * 100) / 100, np.ceil(high * 100) / 100
  return list(zip(low.tolist(), high.tolist(), strict=True))


def short(name: str, group: str) -> str:
  """A name without its group, for the label of a slider."""
  for start in _PREFIXES.get(group, ()):
    if name.startswith(start) and len(name) > len(start):
      return name[len(start)].lower() + name[len(start) + 1 :]
  return name
