"""Augments speech with changes of speed, and with pauses of closed lips.

Eight seconds of a talking person hold hardly a pause, and a network trained
without pauses opens the mouth in silence.
k ticks of FRAME_RATE in a window, n audio samples, e expression coefficients.
"""

import dataclasses

import numpy as np
import soxr
from jaxtyping import Float

from pir_jax import ranges
from pir_jax.data import records, timing
from pir_jax.types import SAMPLE_RATE

HOP = records.SAMPLES_PER_TICK
RAMP = 3  # Ticks in which the lips close, and open again: 0.12 s.
FADE = SAMPLE_RATE // 200  # Samples over which speech fades at a cut: 5 ms.


@ranges.declare(
  share=ranges.SHARE,
  silent=ranges.SHARE,
  hiss=ranges.Range(-200, 0),
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Pauses in training; ours, the paper has no augmentation of speech.

  Attributes:
    share: of the windows that get a pause.
    silent: share of the windows that are silent, lips closed throughout.
    shortest, longest: of a pause, in ticks.
    hiss: loudest noise in a pause, in decibels of the level of the speech; each
      pause gets its own, from there down by another 50.
  """

  share: float = 0.0
  silent: float = 0.0
  shortest: int = 8
  longest: int = 50
  hiss: float = -30.0


def at_speed(run: records.Clip, speed: float) -> records.Clip:
  """Resamples sound and lips to faster (above 1) or slower speech.

  The pitch changes too. `start` still counts the run's own ticks.
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
  """Returns how far the lips are closed in each tick of a pause, 0 to 1."""
  tick = np.arange(length)
  edge = np.minimum(tick + 1, length - tick)
  return np.minimum(edge / (RAMP + 1), 1.0).astype(np.float32)


def insert(
  window: dict[str, np.ndarray],
  start: int,
  hiss: Float[np.ndarray, "m"],
  closed: Float[np.ndarray, "e"],
) -> dict[str, np.ndarray]:
  """Inserts a pause before tick `start`; the window's end is cut off.

  Lips and speech stay synchronised: both are moved. In the pause the expression
  goes from the one before it to the closed lips and on to the one after it.

  Args:
    window: see `sources.SpeechSource`.
    start: first tick of the pause, 0 to k - 1.
    hiss: the sound of the pause, a whole number of ticks.
    closed: expression with the lips closed.
  """
  length = len(hiss) // HOP
  num_ticks = len(window["valid"])
  stop = min(start + length, num_ticks)
  here = (int(window["offset"]) + start) * HOP
  before, after = np.split(window["waveform"].copy(), [here])
  num_samples = len(window["waveform"])
  fade = np.linspace(0, 1, FADE, dtype=np.float32)
  if here:
    before[-FADE:] *= fade[::-1]
  after[:FADE] *= fade
  waveform = np.concatenate([before, hiss, after])[:num_samples]

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
  # The ramps are unknown where the frames beside them hold no face.
  sure = valid[start:stop] > 0
  valid[start:stop] = sure | (share[: stop - start, 0] == 1)
  return {
    **window,
    "waveform": waveform.astype(np.float32),
    "length": np.minimum(window["length"] + np.int32(len(hiss)), num_samples),
    "expression": expression,
    "valid": valid,
  }


def at_random(
  window: dict[str, np.ndarray], rng: np.random.Generator, config: Config
) -> dict[str, np.ndarray]:
  """Inserts a pause at random in a share of windows.

  Args:
    window: see `insert`; its `closed` (e) is removed.
    rng: of position, length and loudness.
    config: of the pauses.
  """
  window = dict(window)
  closed = window.pop("closed")
  # Sampled in any case, so that the share does not change the other samples.
  lucky = rng.random()
  longest = max(config.shortest, config.longest)
  length = int(rng.integers(config.shortest, longest + 1))
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
  """Returns a silent window of the same size with closed lips."""
  return {
    **window,
    "waveform": hiss,
    "length": np.int32(len(hiss)),
    "expression": np.broadcast_to(closed, window["expression"].shape).copy(),
    "valid": np.ones_like(window["valid"]),
  }
