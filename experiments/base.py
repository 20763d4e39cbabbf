"""The base: what three networks learn from many people.

Command: python -m pir_jax.prepare --input=people --output=data/people
  python -m pir_jax.train --config=experiments/base.py:STAGE
  --config.data.path=data/people --config.data.speakers=LIST
  --workdir=runs/base/STAGE
for the stages expression, triplane and inpainting, in this order.
Hardware: two CPU cores; 2, 35 and 25 minutes. Score on people left out: see
RESULTS.
Of what the shipped base learnt are `base_speech.tsv` and `base_faces.tsv`: file
and speaker of each clip, where it was published, and the shift of its sound
(`experiments/speech_folds.py` measures it on people held out, and writes the
list). Image stages learn faces: only from footage that may be used so.
"""

import dataclasses

from experiments import expression as expression_file
from experiments import inpainting as inpainting_file
from experiments import triplane as triplane_file
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import loop, optim
from pir_jax.types import ConfigError


def get_config(variant: str = "") -> Experiment:
  """One of the three networks, in the demo's sizes, for everybody."""
  variants = {
    "expression": expression,
    "triplane": triplane,
    "inpainting": inpainting,
  }
  if variant not in variants:
    raise ConfigError(
      f"no variant {variant!r}: there are {', '.join(variants)}"
    )
  return variants[variant]()


def expression() -> Experiment:
  """Stage 1, around each speaker's own mean."""
  small = expression_file.scratch()
  stage = dataclasses.replace(
    small.stage,
    optim=optim.Config(
      learning_rate=1e-3, warmup_steps=50, decay_start=0.4, final_scale=0.05
    ),
    ema_decay=0.99,
  )
  return dataclasses.replace(
    small,
    stage=stage,
    data=dataclasses.replace(small.data, batch_size=8),
    loop=loop.Config(
      num_steps=500, log_every=100, save_every=250, evaluate_every=250
    ),
  )


def triplane() -> Experiment:
  """Stage 2, of everybody's faces."""
  small = triplane_file.scratch()
  return dataclasses.replace(
    small,
    data=dataclasses.replace(small.data, batch_size=4),
    loop=loop.Config(
      num_steps=6000, log_every=200, save_every=500, evaluate_every=1000
    ),
  )


def inpainting() -> Experiment:
  """Stage 3, of everybody's frames."""
  small = inpainting_file.scratch()
  return dataclasses.replace(
    small,
    loop=loop.Config(
      num_steps=5000, log_every=200, save_every=500, evaluate_every=1000
    ),
  )
