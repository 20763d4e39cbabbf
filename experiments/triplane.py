"""Stage 2: the tri-plane generator of one person (or of many).

Command: python -m pir_jax.train --config=experiments/triplane.py
  --config.data.path=data/me --workdir=runs/me/triplane
Variants: none is the paper's size, which has not been trained; `:demo` adapts
the base of many people to a clip of 8 s at 512x512 in 70 s of steps on two CPU
cores (held-out PSNR inside the head 20.8 dB); `:small` does so for five times
as long (22.1 dB); `:scratch` is its size from nothing, 360 s (not measured
since noise has all levels).
At the paper's size activations are bfloat16 and those within a block are
computed again for the gradient, so that 8 examples fit a chip of 16 GB: our
choices, for the paper names neither. Both small ones are float32 and keep them.
"""

import dataclasses

from pir_jax.models import dual_discriminator, renderer, triplane_generator
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop, optim
from pir_jax.stages import gan, triplane
from pir_jax.types import ConfigError


def get_config(variant: str = "") -> Experiment:
  """The paper's size, or one of the variants."""
  variants = {"demo": demo, "live": demo, "small": small, "scratch": scratch}
  if variant in variants:
    return variants[variant]()
  if variant:
    raise ConfigError(
      f"no variant {variant!r}: there are {', '.join(variants)} and none"
    )
  # Sizes are the paper's or EG3D's; batch and length are our choice.
  return Experiment(
    stage=triplane.Config(dtype="bfloat16", remat="blocks"),
    data=Data(batch_size=32, resolution=512),
    loop=loop.Config(num_steps=50_000),
  )


def demo() -> Experiment:
  """Adapts the base to one person's face."""
  experiment = scratch()
  stage = experiment.stage
  return dataclasses.replace(
    experiment,
    stage=dataclasses.replace(stage, init_from="base"),
    loop=dataclasses.replace(
      experiment.loop, num_steps=400, save_every=200, evaluate_every=400
    ),
  )


def small() -> Experiment:
  """The demo, for longer.

  A volume has no resolution of its own: stage 3 renders it by as many rays as
  its larger windows take.
  """
  experiment = demo()
  return dataclasses.replace(
    experiment, loop=dataclasses.replace(experiment.loop, num_steps=2000)
  )


def scratch() -> Experiment:
  """Everything smaller, nothing left out."""
  return Experiment(
    stage=triplane.Config(
      model=triplane_generator.Config(
        channel_base=4096,
        channel_max=64,
        w_size=128,
        # A 32x32 constant: learning where things are from 4x4 takes hours.
        constant_side=32,
        plane_resolution=64,
        plane_channels=16,
        feature_resolution=32,
        resolution=128,
        sr_channels=(32, 16),
        noise=False,
        renderer=renderer.Config(
          num_coarse=16,
          num_fine=16,
          ray_start=2.3,
          ray_end=3.1,
          hidden_size=32,
        ),
      ),
      optim=optim.Config(
        learning_rate=0.02,
        b2=0.99,
        warmup_steps=20,
        decay_start=0.4,
        final_scale=0.05,
      ),
      # The raw image follows the face image here; its own LPIPS takes time.
      weights=triplane.Weights(raw_perceptual=0.0),
      # Only used with --config.stage.weights.adversarial=0.1 or so.
      gan=gan.Config(
        model=dual_discriminator.Config(
          channel_base=2048, channel_max=32, map_depth=2
        ),
        start=500,
        blur_steps=500,
      ),
      perceptual_size=48,
      perceptual_layers=3,
      expression_noise=0.05,
      ema_decay=0.995,
    ),
    data=Data(batch_size=2, resolution=128),
    loop=loop.Config(
      num_steps=2000, log_every=100, save_every=500, evaluate_every=2000
    ),
  )
