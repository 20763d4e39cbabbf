"""Speech at one level, and with pauses in which the lips are closed.

Eight seconds of a talking person hold hardly a pause, and a network that never
heard one opens the mouth in silence.
k ticks of FRAME_RATE in a window, n audio samples, e expression coefficients.
"""

import dataclasses
import math

import numpy as np
import soxr
from jaxtyping import Float

from pir_jax.data import records, timing
from pir_jax.types import FRAME_RATE, SAMPLE_RATE, InputError

HOP = records.SAMPLES_PER_TICK
RAMP = 3  # Ticks in which the lips close, and open again: 0.12 s.
QUIETEST = 1e-5  # Less than the last bit of 16: not worth raising.
FADE = SAMPLE_RATE // 200  # Samples over which speech fades at a cut: 5 ms.
QUIETEST_SPEECH = 1e-3  # Peak; -60 dB of full scale.
SHORTEST_SPEECH = SAMPLE_RATE // FRAME_RATE  # Samples of one video frame.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Pauses in training; ours, the paper names no augmentation of speech.

  Attributes:
    share: of the windows that get a pause.
    silent: share of the windows that are nothing else, lips closed throughout.
    shortest, longest: of a pause, in ticks.
    hiss: loudest noise in a pause, in decibels of the level of the speech; each
      pause gets its own, from there down by another 50.
  """

  share: float = 0.0
  silent: float = 0.0
  shortest: int = 8
  longest: int = 50
  hiss: float = -30.0


def check(waveform: Float[np.ndarray, "n"], *, silence: bool = False) -> bool:
  """Refuses what cannot drive a face: nothing, or not numbers.

  Args:
    waveform: as `media.read_audio` gives it.
    silence: whether it may be silent throughout.

  Returns:
    Whether anything is to be heard.

  Raises:
    InputError: it cannot be used.
  """
  if not len(waveform):
    raise InputError("the sound is empty: give a file with speech.")
  # Not of the absolute values: hours of speech are not copied.
  low, high = float(waveform.min()), float(waveform.max())
  if not np.isfinite(low) or not np.isfinite(high):
    raise InputError(
      "the sound has samples that are not numbers: export it again."
    )
  if len(waveform) < SHORTEST_SPEECH:
    raise InputError(
      f"the sound lasts {1000 * len(waveform) / SAMPLE_RATE:.0f} ms, less than"
      " one video frame: give a file with speech."
    )
  heard = max(-low, high) >= QUIETEST_SPEECH
  if not (heard or silence):
    raise InputError(
      "the sound is silent: give a file with speech louder than -60 dB."
    )
  return heard


def level(waveform: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
  """Zero mean and unit variance over the whole of it, as wav2vec 2.0 wants it.

  Over a whole utterance and not over each window: a window that holds a pause
  alone would otherwise become loud.
  """
  # Python numbers, or hours of speech would turn into float64.
  levelled = waveform - float(np.mean(waveform, dtype=np.float64))
  variance = float(np.mean(np.square(levelled), dtype=np.float64))
  levelled /= max(math.sqrt(variance), QUIETEST)
  return levelled


def at_speed(run: records.Clip, speed: float) -> records.Clip:
  """The run as if spoken faster (above 1) or slower; pitch goes along.

  Sound and lips are resampled alike. `start` still counts the run's own ticks.
  """
  if speed == 1.0:
    return run
  num_ticks = int(len(run.valid) / speed)
  # Tick i shows the middle of its time, in the run's own ticks.
  place = (np.arange(num_ticks) + 0.5) * speed - 0.5
  own = np.arange(len(run.valid), dtype=np.float64)
  expression, valid = timing.interpolate(own, run.expression, run.valid, place)
  waveform = soxr.resample(run.waveform, SAMPLE_RATE * speed, SAMPLE_RATE)
  short = max(0, num_ticks * HOP - len(waveform))
  return run._replace(
    expression=expression.astype(np.float32),
    valid=valid,
    waveform=np.pad(waveform, (0, short))[: num_ticks * HOP],
  )


def closing(length: int) -> Float[np.ndarray, "k"]:
  """How far the lips have closed in each tick of a pause, 0 to 1."""
  tick = np.arange(length)
  edge = np.minimum(tick + 1, length - tick)
  return np.minimum(edge / (RAMP + 1), 1.0).astype(np.float32)


def insert(
  window: dict[str, np.ndarray],
  start: int,
  hiss: Float[np.ndarray, "m"],
  closed: Float[np.ndarray, "e"],
) -> dict[str, np.ndarray]:
  """The window with a pause before tick `start`; its end falls off.

  Lips and speech stay in step: both are moved. In the pause the expression
  goes from the one before it to the closed lips and on to the one after it.

  Args:
    window: waveform (n), expression (k e), valid (k), and more that is kept.
    start: first tick of the pause, 0 to k - 1.
    hiss: the sound of the pause, a whole number of ticks.
    closed: expression with the lips closed.
  """
  length = len(hiss) // HOP
  num_ticks = len(window["valid"])
  stop = min(start + length, num_ticks)
  before, after = np.split(window["waveform"].copy(), [start * HOP])
  fade = np.linspace(0, 1, FADE, dtype=np.float32)
  if start:
    before[-FADE:] *= fade[::-1]
  after[:FADE] *= fade
  waveform = np.concatenate([before, hiss, after])[: num_ticks * HOP]

  def moved(values):
    gap = values[start : start + 1].repeat(length, axis=0)
    return np.concatenate([values[:start], gap, values[start:]])[:num_ticks]

  expression, valid = moved(window["expression"]), moved(window["valid"])
  way = np.linspace(0, 1, length, dtype=np.float32)[:, None]
  ends = window["expression"][[max(start - 1, 0), start]]
  open_lips = ends[0] * (1 - way) + ends[1] * way
  share = closing(length)[:, None]
  pause = open_lips * (1 - share) + closed * share
  expression[start:stop] = pause[: stop - start]
  # Of the ramps nothing is known where the frames beside them hold no face.
  sure = valid[start:stop] > 0
  valid[start:stop] = sure | (share[: stop - start, 0] == 1)
  return {
    **window,
    "waveform": waveform.astype(np.float32),
    "expression": expression,
    "valid": valid,
  }


def at_random(
  window: dict[str, np.ndarray], rng: np.random.Generator, config: Config
) -> dict[str, np.ndarray]:
  """A share of windows with a pause somewhere, as the Config says.

  Args:
    window: see `insert`; its `closed` (e) is taken out.
    rng: of where, how long and how loud.
    config: of the pauses.
  """
  window = dict(window)
  closed = window.pop("closed")
  # Drawn in any case, so that a share of 0.5 keeps the other half's draws.
  lucky = rng.random()
  length = int(rng.integers(config.shortest, config.longest + 1))
  start = int(rng.integers(len(window["valid"])))
  loudness = 10 ** (rng.uniform(config.hiss - 50.0, config.hiss) / 20)
  if lucky < config.silent:
    hiss = loudness * rng.standard_normal(len(window["waveform"]))
    return silenced(window, hiss.astype(np.float32), closed)
  if lucky >= config.silent + config.share:
    return window
  hiss = loudness * rng.standard_normal(length * HOP)
  return insert(window, start, hiss.astype(np.float32), closed)


def silenced(
  window: dict[str, np.ndarray],
  hiss: Float[np.ndarray, "n"],
  closed: Float[np.ndarray, "e"],
) -> dict[str, np.ndarray]:
  """A window of the same size in which nothing is said."""
  return {
    **window,
    "waveform": hiss,
    "expression": np.broadcast_to(closed, window["expression"].shape).copy(),
    "valid": np.ones_like(window["valid"]),
  }
