"""The lag of a clip's sound, measured by a network that knows others' speech.

Footage is often out of step by some frames. What has learnt from many people
predicts lips in step: where those of a clip follow later or earlier, its sound
is moved before the network learns from it.
k ticks, e expression coefficients, p coordinates of lip points.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from pir_jax.data.dataset import Clip, Dataset
from pir_jax.media import speech_waveform
from pir_jax.runs import frozen_networks
from pir_jax.runs.experiment import Experiment
from pir_jax.runs.run import Run, has_begun, open_run, origin_of, read_record
from pir_jax.stages import expression
from pir_jax.types import FRAME_RATE

MAX_SHIFT = 8  # Ticks that are tried, early and late: 0.32 s.
LEAST = 0.3  # Correlation of lip motion from which a shift is believed.


def in_step(
  experiment: Experiment, data: Dataset, workdir: pathlib.Path
) -> Dataset:
  """Puts the sound of clips in step before stage 1 is adapted to them.

  Only where it begins from a network of many people, and no list holds shifts.
  A run that goes on keeps those that it has begun with.
  """
  config = experiment.stage
  if (
    not isinstance(config, expression.Config)
    or not (config.relative and config.init_from)
    or experiment.data.speakers
  ):
    return data
  if has_begun(workdir):
    return recorded(data, read_record(workdir)["people"])
  run = open_run(origin_of(config.init_from, "expression"))
  return Dataset([_measured(clip, run) for clip in data])


def recorded(data: Dataset, people: list[dict[str, Any]]) -> Dataset:
  """Puts the sound of clips in step as a run's record has it."""
  shifts = {person["sha256"]: person.get("shift", 0) for person in people}
  return Dataset(
    [
      dataclasses.replace(clip, shift=shifts.get(clip.manifest.sha256, 0))
      for clip in data
    ]
  )


def _measured(clip: Clip, run: Run) -> Clip:
  shift, correlation = measure(clip, run)
  if not correlation >= LEAST:
    print(
      f"{clip.manifest.source}: the lips follow this sound at no shift; it is "
      "learnt as it is."
    )
    return clip
  if shift:
    late = "late" if shift > 0 else "early"
    print(
      f"{clip.manifest.source}: its sound comes {abs(shift) / FRAME_RATE:g} s "
      f"{late} and is put in step."
    )
  return dataclasses.replace(clip, shift=shift)


def measure(clip: Clip, run: Run) -> tuple[int, float]:
  """Measures by how many ticks the sound of a clip's training part is late.

  Args:
    clip: as it was prepared.
    run: of stage 1.

  Returns:
    The shift at which lip motion correlates best with what is predicted, and
    that correlation; NaN without speech.
  """
  basis = frozen_networks.lip_basis(run.space)
  num = 2 * MAX_SHIFT + 1
  product, power = np.zeros(num), np.zeros((num, 2))
  for speech in clip.speech():
    stop = min(clip.held_out_tick - speech.start, len(speech.valid))
    if stop <= MAX_SHIFT:
      continue
    waveform = speech.waveform[: stop * expression.HOP]
    predicted = run.stage.predict(
      run.state,
      speech_waveform.normalize(waveform),
      clip.identity,
      clip.expression_stats,
    )
    ours = _motion(predicted[:stop], basis)
    fitted = _motion(speech.expression[:stop], basis)
    for i in range(num):
      place = np.arange(stop) + i - MAX_SHIFT
      kept = speech.valid[:stop] & (place >= 0) & (place < stop)
      pair = ours[place[kept]], fitted[kept]
      product[i] += np.sum(pair[0] * pair[1])
      power[i] += [np.sum(np.square(x)) for x in pair]
  if not power.all():
    return 0, math.nan
  correlation = product / np.sqrt(power.prod(1))
  best = int(correlation.argmax())
  return best - MAX_SHIFT, float(correlation[best])


def _motion(
  values: Float[np.ndarray, "k e"], basis: Float[np.ndarray, "e p"]
) -> Float[np.ndarray, "k p"]:
  return (values - values.mean(0)) @ basis
