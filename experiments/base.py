"""The base: what three networks learn from many people.

Command: python -m pir_jax.prepare --input=people --output=data/people
  python -m pir_jax.train --config=experiments/base.py:STAGE
  --config.data.path=data/people --config.data.speakers=LIST
  --workdir=runs/base/STAGE
for the stages expression, triplane, inpainting_coarse and inpainting, in this
order; the last two with --config.stage.triplane=runs/base/triplane, the last
with --config.stage.init_from=runs/base/inpainting_coarse.
Hardware: two CPU cores; 2, 35, 25 and 25 minutes. Score on people left out: see
RESULTS. The shipped triplane learnt 6000 steps with expression noise of one
level and 2500 more (init_from) at all of them, as the recipe has it now.
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
    "inpainting_coarse": inpainting_coarse,
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


def inpainting_coarse() -> Experiment:
  """Stage 3, of everybody's frames, small ones."""
  small = inpainting_file.scratch()
  return dataclasses.replace(
    small,
    loop=loop.Config(
      num_steps=5000, log_every=200, save_every=500, evaluate_every=1000
    ),
  )


def inpainting() -> Experiment:
  """Goes on with larger frames, and a discriminator of crops of the mouth."""
  coarse = inpainting_coarse()
  stage = coarse.stage
  return dataclasses.replace(
    coarse,
    stage=dataclasses.replace(
      stage,
      adversarial_crops=True,
      perceptual_size=80,
      # The rest of them lie anywhere: the mask's rim needs detail too.
      perceptual_at_mouth=0.7,
      weights=dataclasses.replace(
        stage.weights, adversarial=0.5, feature_matching=5.0
      ),
    ),
    data=dataclasses.replace(coarse.data, resolution=192),
    loop=loop.Config(
      num_steps=2500, log_every=200, save_every=500, evaluate_every=2500
    ),
  )
