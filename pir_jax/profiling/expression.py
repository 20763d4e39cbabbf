"""Measures a window of speech on its way to expressions, part by part.

b batch, t frames, n samples of sound.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pir_jax.models import triplane_generator
from pir_jax.ops import interpolation
from pir_jax.profiling import abstract_stage
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling.parts import Part
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import sharding
from pir_jax.stages import expression
from pir_jax.stages.train_state import TrainState
from pir_jax.types import SpeechBatch

WINDOW = "whole window"


class Networks(NamedTuple):
  """Speech encoder and expression decoder."""

  encoder: Any
  decoder: Any


def parts(config: expression.Config, num_frames: int) -> list[Part]:
  """Returns the parts in their order, then the whole that holds them.

  Args:
    config: of the stage.
    num_frames: of the window.
  """

  def encode(m, waveform, lengths):
    features = m.encoder(waveform, num_frames, lengths=lengths, key=None)
    return interpolation.stack_neighbours(features, config.context_frames)

  def decode(m, features, identity):
    return m.decoder.generate(features, identity)

  def whole(m, waveform, lengths, identity):
    return decode(m, encode(m, waveform, lengths), identity)

  speech = ("waveform", "lengths")
  return [
    Part("speech encoder", encode, speech, "features"),
    Part("decoder, frame by frame", decode, ("features", "identity")),
    Part(WINDOW, whole, (*speech, "identity")),
  ]


def measure(
  experiment: Experiment, repeats: int, training: bool
) -> Iterator[parts_lib.Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the expression stage, with its batch size and window.
    repeats: of each part.
    training: whether gradients and a training step are timed as well.
  """
  stage, batch = _stage_and_speech(experiment)
  results = {
    "waveform": batch.waveform,
    "lengths": batch.length,
    "identity": batch.identity,
  }

  def bind(state):
    encoder, decoder = state
    return Networks(stage.encoder.bind(*encoder), stage.decoder.bind(*decoder))

  state = tuple(map(parts_lib.random_state, (stage.encoder, stage.decoder)))
  # The margins are encoded as well.
  num_frames = batch.waveform.shape[1] // expression.HOP
  every = parts(experiment.stage, num_frames)
  yield from parts_lib.measure_parts(every, bind, state, results, repeats)
  if not training:
    return
  del results["features"]

  def objective(trained, state, inputs):
    encoder, decoder = state
    tuned = trained.get("encoder", encoder[0])
    networks = bind(((tuned, encoder[1]), (trained["decoder"], decoder[1])))
    return jnp.mean(jnp.square(every[-1].function(networks, *inputs)))

  trained = {"decoder": state[1][0]}
  if stage.tuned:
    trained["encoder"] = state[0][0]
  inputs = [results[name] for name in every[-1].inputs]
  yield parts_lib.measure(
    parts_lib.GRADIENT, jax.grad(objective), (trained, state, inputs), repeats
  )[0]
  del state, trained
  yield parts_lib.time_step(stage, _zero_state(stage), batch, repeats)


def blank_step(
  experiment: Experiment,
) -> tuple[expression.Expression, TrainState, SpeechBatch]:
  """Returns a stage, a state of zeros and a batch of noise: one step's."""
  stage, batch = _stage_and_speech(experiment)
  return stage, _zero_state(stage), batch


def _zero_state(stage: expression.Expression) -> TrainState:
  # The published encoder, which a run begins with, is only shapes here.
  return jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    stage.abstract_state(),
  )


def _stage_and_speech(experiment):
  """Makes the stage, and a batch of noise as long as a window."""
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  stage = abstract_stage.make_stage(
    experiment, triplane_generator.Config(), mesh
  )
  batch = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    abstract_stage.make_batch(experiment, stage),
  )
  noise = 0.1 * parts_lib.random_arrays(batch.waveform)
  return stage, batch._replace(
    waveform=jax.device_put(noise, batch.waveform.sharding),
    length=batch.length + batch.waveform.shape[1],
    valid=batch.valid + 1,
  )
