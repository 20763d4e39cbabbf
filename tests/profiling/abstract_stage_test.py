"""Steps compile around shapes: nothing is read, fetched or trained."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from pir_jax import assets
from pir_jax.face import morphable
from pir_jax.models import (
  faceformer,
  inpainting,
  patch_discriminator,
  renderer,
  triplane_generator,
  wav2vec2,
  whisper,
)
from pir_jax.profiling import abstract_stage
from pir_jax.runs.experiment import Data, Experiment, mesh_for
from pir_jax.runtime import loop
from pir_jax.stages import expression, triplane
from pir_jax.stages import inpainting as inpainting_stage

LOOP = loop.Config(num_steps=10)
RENDERER = triplane_generator.Config(
  channel_base=64,
  channel_max=8,
  w_size=8,
  plane_resolution=8,
  plane_channels=4,
  feature_resolution=8,
  resolution=32,
  sr_channels=(4, 4),
  renderer=renderer.Config(num_coarse=6, num_fine=6, hidden_size=4),
)


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch):
  def refuse(*arguments, **options):
    raise AssertionError("a file was asked for")

  monkeypatch.setattr(assets, "fetch", refuse)
  # Random numbers take XLA longer to compile than all the rest.
  calm = dict.fromkeys(
    (
      *("feature_dropout", "hidden_dropout", "attention_dropout"),
      *("activation_dropout", "layer_drop", "mask_time"),
    ),
    0.0,
  )
  small = wav2vec2.Config(
    **calm,
    conv_sizes=(4,) * 7,
    width=12,
    num_layers=1,
    num_heads=2,
    ffn=16,
    position_kernel=4,
    position_groups=2,
  )
  monkeypatch.setattr(
    abstract_stage.wav2vec2,
    "Config",
    functools.partial(dataclasses.replace, small),
  )
  tiny = whisper.Config(width=12, num_heads=2, num_layers=1, ffn=16)
  monkeypatch.setattr(
    abstract_stage.whisper,
    "Config",
    functools.partial(dataclasses.replace, tiny),
  )


def speech(batch_size=2, **options):
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(
        width=16, ffn=24, num_heads=2, context=4, dropout=0.0
      ),
      mode="teacher_forced",
      **options,
    ),
    data=Data(batch_size=batch_size, num_frames=4),
    loop=LOOP,
  )


def pictures(stage):
  stage.perceptual_layers, stage.perceptual_size = 1, 16
  return Experiment(
    stage=stage, data=Data(batch_size=2, resolution=32), loop=LOOP
  )


@functools.cache
def compiled(**options):
  return abstract_stage.compile_steps(speech(**options), RENDERER)


def test_the_trained_encoder_is_nothing_but_shapes():
  stage, (found,) = compiled(batch_size=2)
  assert stage.frozen == {}
  assert dict(stage.mesh.shape) == {"data": 2, "fsdp": 1}
  leaves = jax.tree.leaves(stage.abstract_state())
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
  # All of the state on each device, and given back in the same place but for
  # scalars, which are not worth it.
  state = 4 * sum(leaf.size for leaf in leaves)
  assert min(found.arguments, found.outputs) >= state
  assert found.reused > 0.99 * state
  text = abstract_stage.describe(speech(batch_size=2), stage, [found])
  assert "2 examples on 2 x cpu" in text
  assert "trained: encoder" in text


@pytest.mark.slow
def test_more_examples_and_averages_take_more():
  # One device: eight do not divide 1 or 9. A frozen encoder compiles sooner.
  few = compiled(batch_size=1, encoder="whisper")[1][0]
  stage, (many,) = compiled(batch_size=9, encoder="whisper", ema_decay=0.9)
  assert many.temporaries > few.temporaries
  averages = sum(
    leaf.size for leaf in jax.tree.leaves(stage.abstract_state().ema)
  )
  # Waveform with its margins, two numbers about it, expressions and their
  # validity; the decoder sees the identity.
  margins = 2 * stage.config.margin
  example = (4 + margins) * 640 + 2 + 4 * (morphable.NUM_EXPRESSION + 1)
  example += morphable.NUM_IDENTITY
  assert many.arguments - few.arguments == 4 * (averages + 8 * example)


def test_what_is_lowered_is_what_is_run():
  experiment = speech(batch_size=1, encoder="whisper")
  stage, (found,) = compiled(batch_size=1, encoder="whisper")
  batch = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, leaf.dtype),
    abstract_stage.make_batch(experiment, stage),
  )
  state, metrics = stage.step(
    stage.init(jax.random.key(0)), batch, jax.random.key(1), index=0
  )
  assert int(state.step) == 1
  leaves = jax.tree.leaves((state, metrics))
  # The results and the table of their addresses.
  extra = found.outputs - sum(leaf.nbytes for leaf in leaves)
  assert 0 <= extra <= 16 * len(leaves)
  assert "frozen: encoder" in abstract_stage.describe(
    experiment, stage, [found]
  )


def lowered(experiment, renderer=RENDERER):
  stage = abstract_stage.make_stage(experiment, renderer, mesh_for(experiment))
  batch = abstract_stage.make_batch(experiment, stage)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return stage, stage.compiled[0].lower(stage.abstract_state(), batch, key)


def test_a_triplane_takes_pictures_and_cameras():
  stage, step = lowered(pictures(triplane.Config(model=RENDERER)))
  assert set(stage.frozen) == {"lpips"}
  state, metrics = step.out_info
  assert state.step.dtype == np.int32
  assert set(metrics) == {
    "image",
    "raw_image",
    "perceptual",
    "raw_perceptual",
    "silhouette",
    "loss",
    "gradient_norm/generator",
    "bad/generator",
  }
  # Each of the step's phases can be told from the others.
  assert [step.name for step in stage.compiled] == [
    "generator step",
    "density regularization",
  ]


def test_inpainting_takes_the_triplane_it_is_given():
  config = inpainting_stage.Config(
    model=inpainting.Config(channels=4, num_downsamples=1),
    discriminator=patch_discriminator.Config(channels=4, max_channels=4),
  )
  stage, step = lowered(pictures(config))
  assert set(stage.frozen) == {"perceptual", "generator"}
  assert set(step.out_info[0].nets) == {"inpainting", "discriminator"}
