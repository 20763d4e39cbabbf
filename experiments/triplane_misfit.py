"""Measures how much of the tri-plane's held-out error is the head fit's.

Command: python -m experiments.triplane_misfit --model=runs/me/triplane
  --data=data/me
Every frame's camera, then its expression too, is moved by gradient steps until
the trained face looks most like the frame, within the standard deviations
of `stages/frame_corrections.py`. What is gained is an upper bound: the frame
itself was used. It is printed beside the same for training frames.
Hardware: two CPU cores. Time: about three minutes at the demo's size.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from absl import flags

from pir_jax.data import pipelines
from pir_jax.losses import pixel
from pir_jax.runs.run import Run, generator_of, open_run
from pir_jax.runtime import app
from pir_jax.stages import conditioning, frame_corrections
from pir_jax.types import FaceBatch, InputError

_MODEL = flags.DEFINE_string("model", None, "Run directory of stage 2.")
_DATA = flags.DEFINE_string("data", None, "Prepared clip.")
_FRAMES = 12  # Of each part: the first held out, and some of training.
_STEPS = 40
_LEARNING_RATE = 0.1  # In expected standard deviations.
_WEIGHT = 0.02  # Of the corrections' squares, as in training.


def refit(
  run: Run, batch: FaceBatch, names: tuple[str, ...]
) -> tuple[float, float]:
  """Returns the head's PSNR before and after the corrections in `names`."""
  config = dataclasses.replace(
    run.stage.config.refinement, num_frames=len(batch.image)
  )
  generator = generator_of(run)
  batch = jax.tree.map(jnp.asarray, batch)
  corrections = frame_corrections.zeros(config, run.space.expression_size)

  def render(corrections):
    inputs = frame_corrections.apply(config, corrections, run.space, batch)
    return generator(*inputs).image

  def loss(corrections):
    error = pixel.weighted_l1(render(corrections), batch.image, batch.head)
    square = jnp.mean(
      jnp.square(jnp.concatenate([*corrections.values()], -1)), -1
    )
    return jnp.sum(error + _WEIGHT * square)

  optimizer = optax.adam(_LEARNING_RATE)

  @jax.jit
  def step(corrections, state):
    gradients = {
      name: gradient if name in names else jnp.zeros_like(gradient)
      for name, gradient in jax.grad(loss)(corrections).items()
    }
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(corrections, updates), state

  @jax.jit
  def psnr(corrections):
    return jnp.mean(conditioning.psnr(render(corrections), batch))

  before, state = psnr(corrections), optimizer.init(corrections)
  for _ in range(_STEPS):
    corrections, state = step(corrections, state)
  return float(before), float(psnr(corrections))


def main() -> None:
  """Prints the table."""
  if not (_MODEL.value and _DATA.value):
    raise InputError("Missing required flags: --model, --data.")
  run = open_run(_MODEL.value)
  cameras = ("rotation", "translation")
  print("PSNR of the head, dB        as fitted   camera   and expression")
  for split in ("held_out", "train"):
    batch = next(
      iter(
        pipelines.face_dataset(
          _DATA.value,
          resolution=run.experiment.data.resolution,
          batch_size=_FRAMES,
          split=split,
          shuffle=split == "train",
          repeat=split == "train",
        )
      )
    )
    before, moved = refit(run, batch, cameras)
    _, changed = refit(run, batch, (*cameras, "expression"))
    name = f"{split}, {len(batch.image)} frames"
    print(f"{name:26}{before:11.2f}{moved:9.2f}{changed:17.2f}", flush=True)


if __name__ == "__main__":
  app.run(main)
