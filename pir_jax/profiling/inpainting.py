"""Measures a frame of the inpainting stage, part by part."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pir_jax.models import inpainting, triplane_generator
from pir_jax.ops import pooling
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling.parts import Part
from pir_jax.runs.experiment import Experiment
from pir_jax.stages import base

GENERATOR = "whole generator"
FEATURES = "feature image"
FRAME = "network frame"
WHOLES = (GENERATOR, FEATURES, FRAME, parts_lib.STEP)
_CONDITIONS = ("identity", "expression", "camera")


class Networks(NamedTuple):
  """The networks of a frame.

  Attributes:
    inpainter: the inpainting generator.
    renderer: the tri-plane generator of its feature image.
  """

  inpainter: inpainting.InpaintingGenerator
  renderer: triplane_generator.TriPlaneGenerator


def parts() -> list[Part]:
  """Returns the parts in their order, then the wholes that hold them."""
  normalise = inpainting.normalise

  def coarse_in(m, frame):
    return normalise(m.inpainter.coarse_in(pooling.halve(frame)))

  def coarse_down(m, x):
    for layer in m.inpainter.coarse_down:
      x = normalise(layer(x))
    return x

  def coarse_blocks(m, x, feature):
    x = jnp.concatenate([x, feature.astype(x.dtype)], axis=-1)
    for block in m.inpainter.coarse_blocks:
      x = block(x)
    return x

  def coarse_up(m, x):
    for layer in m.inpainter.coarse_up:
      x = normalise(layer(x))
    return x

  def fine_in(m, frame):
    return normalise(m.inpainter.fine_in(frame))

  def fine_down(m, x, coarse):
    return coarse + normalise(m.inpainter.fine_down(x))

  def fine_blocks(m, x):
    for block in m.inpainter.fine_blocks:
      x = block(x)
    return x

  def fine_up(m, x):
    return normalise(m.inpainter.fine_up(x))

  def fine_out(m, x):
    return jnp.tanh(m.inpainter.fine_out(x).astype(jnp.float32))

  def whole(m, frame, feature):
    return m.inpainter(frame, feature).image

  def features(m, *conditions):
    return m.renderer(*conditions, upsample=False).feature_image

  def both(m, frame, *conditions):
    return whole(m, frame, features(m, *conditions))

  return [
    Part("coarse: half size, 7x7", coarse_in, ("frame",), "halved"),
    Part("coarse: downsampling", coarse_down, ("halved",), "small"),
    Part("coarse: blocks", coarse_blocks, ("small", "feature"), "bottleneck"),
    Part("coarse: upsampling", coarse_up, ("bottleneck",), "coarse"),
    Part("fine: 7x7", fine_in, ("frame",), "wide"),
    Part("fine: downsampling, sum", fine_down, ("wide", "coarse"), "sum"),
    Part("fine: blocks", fine_blocks, ("sum",), "detail"),
    Part("fine: upsampling", fine_up, ("detail",), "last"),
    Part("fine: 7x7 to the image", fine_out, ("last",), "image"),
    Part(GENERATOR, whole, ("frame", "feature")),
    Part(FEATURES, features, _CONDITIONS),
    Part(FRAME, both, ("frame", *_CONDITIONS)),
  ]


def matched_config(
  config: inpainting.Config, renderer: triplane_generator.Config
) -> inpainting.Config:
  """Returns the config with as many feature channels as a plane has."""
  return dataclasses.replace(config, feature_channels=renderer.plane_channels)


def measure(
  experiment: Experiment,
  renderer: triplane_generator.Config,
  repeats: int,
  training: bool,
) -> Iterator[parts_lib.Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the inpainting stage, with its batch size.
    renderer: of the tri-plane.
    repeats: of each part.
    training: whether the gradient by the generator's parameters and a training
      step are timed as well.

  Raises:
    InputError: sizes that no network can have, or that do not fit each other.
  """
  config = matched_config(experiment.stage.model, renderer)
  num_batch, side = experiment.data.batch_size, experiment.data.resolution
  inpainter = base.Network(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )
  planes = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(renderer, rngs=rngs)
  )

  def bind(state: PyTree) -> Networks:
    return Networks(inpainter.bind(*state[0]), planes.bind(*state[1]))

  channels = config.input_channels, renderer.plane_channels
  shapes = [
    jax.ShapeDtypeStruct((num_batch, size, size, c), jnp.float32)
    for size, c in zip(
      (side, renderer.feature_resolution), channels, strict=True
    )
  ]
  _check(inpainter, shapes)
  state = parts_lib.random_state(inpainter), parts_lib.random_state(planes)
  frame, feature = parts_lib.random_arrays(shapes)
  results = {"frame": jnp.tanh(frame), "feature": feature}
  results |= parts_lib.conditions(renderer, num_batch)
  yield from parts_lib.measure_parts(parts(), bind, state, results, repeats)
  if training:
    images = results["frame"], results["feature"]
    del results
    yield _gradient(inpainter, state[0], images, repeats)
    del state
    yield parts_lib.measure_step(experiment, renderer, repeats)


def _check(inpainter, shapes) -> None:
  jax.eval_shape(
    lambda state, *images: inpainter.bind(*state)(*images).image,
    jax.eval_shape(inpainter.init, jax.random.key(0)),
    *shapes,
  )


def _gradient(inpainter, state, images, repeats):
  """Times the gradient of the image's squares by the generator's parameters."""

  def objective(params, buffers, *images):
    return jnp.mean(jnp.square(inpainter.bind(params, buffers)(*images).image))

  return parts_lib.measure(
    parts_lib.GRADIENT, jax.grad(objective), (*state, *images), repeats
  )[0]
