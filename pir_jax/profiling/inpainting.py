"""A frame of the inpainting stage, part by part, and their nominal work.

b batch, h and w sides of the frame, g channels of the feature image.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pir_jax.models import inpainting, triplane_generator
from pir_jax.ops import pooling
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling import triplane as triplane_lib
from pir_jax.profiling.parts import Part
from pir_jax.runs.experiment import Experiment
from pir_jax.types import InputError

PAINTING = "whole generator"
FEATURES = "feature image"
FRAME = "network frame"
RATED = (PAINTING, FEATURES, FRAME, parts_lib.STEP)
_GIVEN = ("identity", "face", "view")


class Networks(NamedTuple):
  """What a frame takes.

  Attributes:
    painter: the inpainting generator.
    renderer: the tri-plane generator whose feature image it sees.
  """

  painter: inpainting.InpaintingGenerator
  renderer: triplane_generator.TriPlaneGenerator


def parts() -> list[Part]:
  """The parts in the order of the way, then the wholes that hold them."""
  normalise = inpainting.normalise

  def coarse_in(m, frame):
    return normalise(m.painter.coarse_in(pooling.halve(frame)))

  def coarse_down(m, x):
    for layer in m.painter.coarse_down:
      x = normalise(layer(x))
    return x

  def coarse_blocks(m, x, feature):
    x = jnp.concatenate([x, feature.astype(x.dtype)], axis=-1)
    for block in m.painter.coarse_blocks:
      x = block(x)
    return x

  def coarse_up(m, x):
    for layer in m.painter.coarse_up:
      x = normalise(layer(x))
    return x

  def fine_in(m, frame):
    return normalise(m.painter.fine_in(frame))

  def fine_down(m, x, coarse):
    return coarse + normalise(m.painter.fine_down(x))

  def fine_blocks(m, x):
    for block in m.painter.fine_blocks:
      x = block(x)
    return x

  def fine_up(m, x):
    return normalise(m.painter.fine_up(x))

  def fine_out(m, x):
    return jnp.tanh(m.painter.fine_out(x).astype(jnp.float32))

  def whole(m, frame, feature):
    return m.painter(frame, feature).image

  def features(m, *given):
    return m.renderer(*given, upsample=False).feature_image

  def both(m, frame, *given):
    return whole(m, frame, features(m, *given))

  return [
    Part("coarse: half size, 7x7", coarse_in, ("frame",), "seen"),
    Part("coarse: downsampling", coarse_down, ("seen",), "small"),
    Part("coarse: blocks", coarse_blocks, ("small", "feature"), "bottleneck"),
    Part("coarse: upsampling", coarse_up, ("bottleneck",), "coarse"),
    Part("fine: 7x7", fine_in, ("frame",), "wide"),
    Part("fine: downsampling, sum", fine_down, ("wide", "coarse"), "sum"),
    Part("fine: blocks", fine_blocks, ("sum",), "detail"),
    Part("fine: upsampling", fine_up, ("detail",), "last"),
    Part("fine: 7x7 to the image", fine_out, ("last",), "image"),
    Part(PAINTING, whole, ("frame", "feature")),
    Part(FEATURES, features, _GIVEN),
    Part(FRAME, both, ("frame", *_GIVEN)),
  ]


def nominal_gflop(
  config: inpainting.Config, side: int, renderer: triplane_generator.Config
) -> dict[str, float]:
  """Billions of operations of a frame, by the name of its part.

  Two (a product and a sum) for each tap of a convolution, output pixel and
  pair of channels; of an *input* pixel where it doubles the size. Edges count
  as pixels. Norms, activations and the halving of the frame are left out. The
  feature image's are those of `workload_triplane.nominal_gflop`.

  At the paper's size the generator takes 98.9: 77.9 in its residual blocks, 6.2
  in its three 7x7 convolutions.

  Args:
    config: of the network; `feature_channels` as the renderer has planes'.
    side: of the frame in pixels.
    renderer: of the tri-plane.
  """
  num, fine = config.num_downsamples, config.channels
  half, coarse = side // 2, 2 * config.channels
  widths = [coarse * 2**i for i in range(num + 1)]
  sides = [half // 2**i for i in range(num + 1)]
  wide = widths[-1] + config.feature_channels
  inputs = [wide, *widths[-2:0:-1]]
  counts = {
    "coarse: half size, 7x7": 49 * half**2 * config.input_channels * coarse,
    "coarse: downsampling": sum(
      9 * sides[i + 1] ** 2 * widths[i] * widths[i + 1] for i in range(num)
    ),
    "coarse: blocks": config.num_global_blocks * 18 * sides[-1] ** 2 * wide**2,
    "coarse: upsampling": sum(
      9 * sides[num - i] ** 2 * inputs[i] * widths[num - 1 - i]
      for i in range(num)
    ),
    "fine: 7x7": 49 * side**2 * config.input_channels * fine,
    "fine: downsampling, sum": 9 * half**2 * fine * coarse,
    "fine: blocks": config.num_local_blocks * 18 * half**2 * coarse**2,
    "fine: upsampling": 9 * half**2 * coarse * fine,
    "fine: 7x7 to the image": 49 * side**2 * fine * config.output_channels,
  }
  gflop = {name: 2 * count / 1e9 for name, count in counts.items()}
  gflop[PAINTING] = sum(gflop.values())
  triplane = triplane_lib.nominal_gflop(renderer)
  gflop[FEATURES] = triplane[triplane_lib.FEATURES]
  gflop[FRAME] = gflop[PAINTING] + gflop[FEATURES]
  return gflop


def fitting(
  config: inpainting.Config, renderer: triplane_generator.Config
) -> inpainting.Config:
  """The network's sizes with as many feature channels as a plane has."""
  return dataclasses.replace(config, feature_channels=renderer.plane_channels)


def measure(
  experiment: Experiment,
  renderer: triplane_generator.Config,
  repeats: int,
  training: bool,
) -> Iterator[parts_lib.Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the inpainting stage; its batch size is meant.
    renderer: of the tri-plane.
    repeats: of each part.
    training: whether the gradient by the generator's parameters and a training
      step are timed as well.

  Raises:
    InputError: sizes that no network can have, or that do not fit each other.
  """
  config = fitting(experiment.stage.model, renderer)
  num_batch, side = experiment.data.batch_size, experiment.data.resolution
  painter = parts_lib.declare(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )
  planes = parts_lib.declare(
    lambda rngs: triplane_generator.TriPlaneGenerator(renderer, rngs=rngs)
  )

  def bind(state: PyTree) -> Networks:
    return Networks(painter.bind(*state[0]), planes.bind(*state[1]))

  channels = config.input_channels, renderer.plane_channels
  shapes = [
    jax.ShapeDtypeStruct((num_batch, size, size, c), jnp.float32)
    for size, c in zip(
      (side, renderer.feature_resolution), channels, strict=True
    )
  ]
  _check(painter, shapes)
  state = parts_lib.numbers(painter), parts_lib.numbers(planes)
  frame, feature = parts_lib.draw(shapes)
  results = {"frame": jnp.tanh(frame), "feature": feature}
  results |= parts_lib.conditions(renderer, num_batch)
  nominal = nominal_gflop(config, side, renderer)
  gflop = {name: num_batch * value for name, value in nominal.items()}
  yield from parts_lib.walk(parts(), bind, state, results, gflop, repeats)
  if training:
    given = results["frame"], results["feature"]
    del results
    row = _gradient(painter, state[0], given, repeats)
    yield row._replace(gflop=3 * gflop[PAINTING])
    del state
    yield parts_lib.step(experiment, renderer, repeats)


def _check(painter, shapes) -> None:
  try:
    jax.eval_shape(
      lambda state, *given: painter.bind(*state)(*given).image,
      jax.eval_shape(painter.init, jax.random.key(0)),
      *shapes,
    )
  except ValueError as error:
    raise InputError(f"{error}") from error


def _gradient(painter, state, given, repeats):
  """Of the squares of the image, by all of the generator's parameters."""

  def objective(params, buffers, *given):
    return jnp.mean(jnp.square(painter.bind(params, buffers)(*given).image))

  return parts_lib.measured(
    parts_lib.GRADIENT, jax.grad(objective), (*state, *given), repeats
  )[0]
