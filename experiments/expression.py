"""Stage 1: speech and identity -> expression.

Command: python -m pir_jax.train --config=experiments/expression.py
  --config.data.path=data/a,data/b --workdir=runs/me/expression
Needs wav2vec 2.0 (--config.stage.encoder_path=NAME_OR_FOLDER, see README).
Variants: none is the paper's size. `:demo` takes the encoder of Whisper tiny.en
and adapts the base of many people (`base.py`) to a clip of seconds, on two CPU
cores in less than a minute; `:scratch` is its size from nothing.
At the paper's size activations are bfloat16, which is our choice; the paper
names no precision. `:demo` is float32.
"""

import dataclasses

from pir_jax.data import speech_augmentation
from pir_jax.models import faceformer
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop, optim
from pir_jax.stages import expression
from pir_jax.types import ConfigError


def get_config(variant: str = "") -> Experiment:
  """The paper's size, or one of the variants."""
  variants = {"demo": demo, "live": demo, "small": demo, "scratch": scratch}
  if variant in variants:
    return variants[variant]()
  if variant:
    raise ConfigError(
      f"no variant {variant!r}: there are {', '.join(variants)} and none"
    )
  # Sizes and the window are the paper's, Adam and its rate FaceFormer's; batch
  # and length are our choice.
  return Experiment(
    stage=expression.Config(dtype="bfloat16"),
    data=Data(batch_size=8, num_frames=100),
    loop=loop.Config(num_steps=50_000),
  )


def demo() -> Experiment:
  """Adapts the base to one person's voice and lips: small steps, and few."""
  experiment = scratch()
  stage = dataclasses.replace(
    experiment.stage,
    init_from="base",
    optim=optim.Config(learning_rate=2e-4, decay_start=0.5, final_scale=0.05),
  )
  return dataclasses.replace(
    experiment,
    stage=stage,
    loop=dataclasses.replace(experiment.loop, num_steps=60, evaluate_every=20),
  )


def scratch() -> Experiment:
  """Everything smaller; one clip is overfitted soon, hence few steps."""
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(width=256, ffn=512, dropout=0.3, context=50),
      encoder="whisper",
      encoder_path="",
      # Whisper's last layer says more of words, those before it of sounds.
      layer_index=3,
      # People with other faces at rest share the base.
      relative=True,
      context_frames=4,
      weights=expression.Weights(expression=0.3, lips=4.0),
      optim=optim.Config(
        learning_rate=1e-3, warmup_steps=20, decay_start=0.5, final_scale=0.05
      ),
      gain=6.0,
      noise=0.02,
      window=50,
      margin=10,
      ema_decay=0.98,
    ),
    data=Data(
      batch_size=4,
      num_frames=50,
      pauses=speech_augmentation.Config(share=0.3, silent=0.05),
      speeds=(0.88, 1.0, 1.12),
    ),
    loop=loop.Config(
      num_steps=300, log_every=50, save_every=50, evaluate_every=50
    ),
  )
