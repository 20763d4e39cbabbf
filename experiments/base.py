"""The base of many people: what one network learns from all of them.

Command: python -m pir_jax.prepare --input=people --output=data/people
  python -m pir_jax.train --config=experiments/base.py:expression
  --config.data.path=data/people --config.data.speakers=people.tsv
  --workdir=runs/base/expression
Hardware: two CPU cores, two minutes. Score on people left out: see RESULTS.
`people.tsv` names file and speaker of each clip, and the shift of its sound
where that was measured (`experiments/speech_folds.py` measures it on people
held out, and writes the list).
"""

import dataclasses

from experiments import expression as demo_file
from pir_jax.models import faceformer
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import loop, optim
from pir_jax.types import ConfigError


def get_config(variant: str = "") -> Experiment:
  """`expression`: stage 1 of the demo's kind, for everybody."""
  if variant != "expression":
    raise ConfigError(f"no variant {variant!r}: there is `expression`")
  demo = demo_file.demo()
  stage = dataclasses.replace(
    demo.stage,
    model=faceformer.Config(width=256, ffn=512, dropout=0.3, context=50),
    layer_index=3,
    relative=True,
    optim=optim.Config(
      learning_rate=1e-3, warmup_steps=50, decay_start=0.4, final_scale=0.05
    ),
    ema_decay=0.99,
  )
  return dataclasses.replace(
    demo,
    stage=stage,
    data=dataclasses.replace(demo.data, batch_size=8),
    loop=loop.Config(
      num_steps=500, log_every=100, save_every=250, evaluate_every=250
    ),
  )
