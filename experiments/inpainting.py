"""Stage 3: masked frame + feature image -> frame.

Command: python -m pir_jax.train --config=experiments/inpainting.py
  --config.data.path=data/me --workdir=runs/me/inpainting
Needs stage 2 in runs/me/triplane (or --config.stage.triplane=DIRECTORY).
Variants: none is the paper's size, which has not been trained; `:demo` adapts
the base of many people to a clip of 8 s at 512x512, at 192 pixels, in 162 s of
steps on two CPU cores (held-out, fitted expression: 22.3 dB inside the mask,
LPIPS of the mouth 0.11); `:small` does so at 256 pixels, for longer (23.2 dB,
0.08); `:live` at 128, for speech in real time (22.4 dB, 0.14); `:scratch` is
the network from nothing at 128 pixels, 190 s (22.8 dB, 0.13, on an earlier
stage 2).
At the paper's size activations are bfloat16 and those within a block are
computed again for the gradient, so that 8 examples fit a chip of 16 GB: our
choices, for the paper names neither. Both small ones are float32 and keep them.
"""

import dataclasses

from pir_jax.models import inpainting as network
from pir_jax.models import patch_discriminator
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop, optim
from pir_jax.stages import augmentation, inpainting
from pir_jax.types import ConfigError


def get_config(variant: str = "") -> Experiment:
  """The paper's size, or one of the variants."""
  variants = {"demo": demo, "live": live, "small": small, "scratch": scratch}
  if variant in variants:
    return variants[variant]()
  if variant:
    raise ConfigError(
      f"no variant {variant!r}: there are {', '.join(variants)} and none"
    )
  # Sizes are the paper's or pix2pixHD's; batch and length are our choice.
  return Experiment(
    stage=inpainting.Config(dtype="bfloat16", remat="blocks"),
    data=Data(batch_size=8, resolution=512),
    loop=loop.Config(num_steps=50_000),
  )


def demo() -> Experiment:
  """Adapts the base to one person's frames."""
  experiment = scratch()
  stage = experiment.stage
  return dataclasses.replace(
    experiment,
    stage=dataclasses.replace(
      stage,
      init_from="base",
      # Of the whole frame it would be asked about little of the mouth.
      adversarial_crops=True,
      perceptual_size=80,
      weights=dataclasses.replace(
        stage.weights, adversarial=0.5, feature_matching=5.0
      ),
      optim=dataclasses.replace(stage.optim, learning_rate=2e-3),
      discriminator_optim=dataclasses.replace(
        stage.discriminator_optim, learning_rate=1e-3
      ),
    ),
    # As the base; one frame a step costs half the time of two.
    data=dataclasses.replace(experiment.data, batch_size=1, resolution=192),
    loop=dataclasses.replace(
      experiment.loop, num_steps=700, save_every=100, evaluate_every=700
    ),
  )


def live() -> Experiment:
  """The demo's network on smaller windows: two CPU cores keep up with it."""
  experiment = demo()
  return dataclasses.replace(
    experiment,
    stage=dataclasses.replace(experiment.stage, perceptual_size=56),
    data=dataclasses.replace(experiment.data, resolution=128),
  )


def small() -> Experiment:
  """The demo's network on larger windows, for longer."""
  experiment = demo()
  return dataclasses.replace(
    experiment,
    stage=dataclasses.replace(
      experiment.stage, perceptual_size=112, perceptual_at_mouth=0.8
    ),
    data=dataclasses.replace(experiment.data, resolution=256),
    loop=dataclasses.replace(
      experiment.loop, num_steps=4500, evaluate_every=1500
    ),
  )


def scratch() -> Experiment:
  """Everything smaller, nothing left out."""
  adam = dict(b1=0.5, decay_start=0.5, final_scale=0.05)
  return Experiment(
    stage=inpainting.Config(
      model=network.Config(channels=16, num_downsamples=1),
      discriminator=patch_discriminator.Config(channels=16, max_channels=64),
      optim=optim.Config(learning_rate=1e-3, **adam),
      discriminator_optim=optim.Config(learning_rate=5e-4, **adam),
      # Minutes are too few for the discriminator to teach detail; at full
      # weight it adds coloured specks on the eyes.
      weights=inpainting.Weights(
        adversarial=0.1, feature_matching=1.0, pixel=20.0
      ),
      # A pixel of these 32x32 features is four of the frame: moved by however
      # little, it blurs where the lips are.
      augmentation=augmentation.Config(
        shift=0.0, angle=0.0, scale=0.0, turn=0.0, move=0.0
      ),
      perceptual_size=64,
      perceptual_at_mouth=1.0,
      perceptual_layers=3,
      ema_decay=0.99,
    ),
    data=Data(batch_size=2, resolution=128),
    loop=loop.Config(
      num_steps=800, log_every=100, save_every=200, evaluate_every=800
    ),
  )
