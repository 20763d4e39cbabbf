"""Measures a frame of the tri-plane, part by part.

b batch, r rays, s samples along a ray, c channels of a plane.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from pir_jax.geometry import cameras, compositing, rays, sampling, triplane
from pir_jax.models import triplane_generator
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling.parts import Part
from pir_jax.runs.experiment import Experiment
from pir_jax.stages import base

RENDERER = "renderer, both passes"
FEATURES = "whole without super-resolution"
FRAME = "whole frame"
WHOLES = (FRAME, parts_lib.STEP)


def parts(config: triplane_generator.Config) -> list[Part]:
  """Returns the parts in their order, then the wholes that hold them."""
  sampled = config.renderer
  side = config.feature_resolution

  def cast(camera):
    lines = rays.cast(cameras.from_vector(camera), side)
    near, far = sampled.ray_start, sampled.ray_end
    shape = lines.origins.shape[:-1]
    return lines, sampling.stratified(near, far, sampled.num_coarse, shape)

  def place(_, camera):
    lines, depths = cast(camera)
    return rays.points_along(lines, depths).reshape(len(camera), -1, 3)

  def lookup(_, planes, points):
    where = triplane.project(
      points * (2 / sampled.box_warp), layout=sampled.plane_layout
    )
    return triplane.lookup(triplane.border(planes), where)

  def decode(model, features):
    return _by_ray(model.renderer.decoder(features), side)

  def importance(_, camera, coarse):
    depths = cast(camera)[1]
    weights = compositing.interval_weights(coarse.density, depths)
    return sampling.importance(depths, weights, sampled.num_fine)

  def second(model, camera, planes, depths):
    points = rays.points_along(cast(camera)[0], depths)
    points = points.reshape(len(camera), -1, 3)
    return _by_ray(model.renderer.sample(triplane.border(planes), points), side)

  def merge(_, camera, coarse, depths, fine):
    every = zip(coarse, fine, strict=True)
    return compositing.render_merged(*every, (cast(camera)[1], depths))

  def composite(_, camera, coarse):
    return compositing.render(coarse.color, coarse.density, cast(camera)[1])

  first = [
    Part(
      "mapping", lambda m, i, e: m.map(i, e), ("identity", "expression"), "ws"
    ),
    Part("planes", lambda m, ws: m.planes(ws), ("ws",), "planes"),
    Part("rays and coarse points", place, ("camera",), "points"),
    Part("plane lookup, coarse", lookup, ("planes", "points"), "features"),
    Part("decoder, coarse", decode, ("features",), "coarse"),
  ]
  if sampled.num_fine:
    inputs = ("camera", "planes", "depths")
    first += [
      Part("importance sampling", importance, ("camera", "coarse"), "depths"),
      Part("lookup and decoder, fine", second, inputs, "fine"),
      Part(
        "merge and compositing", merge, ("camera", "coarse", "depths", "fine")
      ),
    ]
  else:
    first += [Part("compositing", composite, ("camera", "coarse"))]

  def render(model, camera, planes):
    rendering = model.renderer(planes, cameras.from_vector(camera), side)
    return rendering._replace(
      feature=rendering.feature.reshape(len(camera), side, side, -1)
    )

  def upsample(model, ws, rendering):
    return model.upsampler(rendering.feature, ws[:, -1])

  def features(model, *inputs):
    return model(*inputs, upsample=False).feature_image

  def frame(model, *inputs):
    out = model(*inputs)
    return out.feature_image, out.image

  inputs = ("identity", "expression", "camera")
  return [
    *first,
    Part(RENDERER, render, ("camera", "planes"), "rendering"),
    Part("upsampler", upsample, ("ws", "rendering")),
    Part(FEATURES, features, inputs),
    Part(FRAME, frame, inputs),
  ]


def _by_ray(samples, side):
  num_batch = len(samples.density)
  shape = num_batch, side**2, -1
  return samples._replace(
    color=samples.color.reshape(
      num_batch, side**2, -1, samples.color.shape[-1]
    ),
    density=samples.density.reshape(shape),
  )


def measure(
  experiment: Experiment, repeats: int, training: bool
) -> Iterator[parts_lib.Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the tri-plane stage, with its batch size.
    repeats: of each part.
    training: whether gradients and a training step are timed as well.

  Raises:
    InputError: sizes that no network can have.
  """
  config, num_batch = experiment.stage.model, experiment.data.batch_size
  network = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )
  state = parts_lib.random_state(network)
  results = parts_lib.conditions(config, num_batch)
  yield from parts_lib.measure_parts(
    parts(config), lambda s: network.bind(*s), state, results, repeats
  )
  if training:
    inputs = [results[name] for name in ("identity", "expression", "camera")]
    del results
    yield _gradient(network, state, inputs, repeats)
    del state
    yield parts_lib.measure_step(experiment, config, repeats)


def _gradient(network, state, inputs, repeats):
  """Times the gradient of both images' squares by all parameters."""

  def objective(params, buffers, *inputs):
    out = network.bind(params, buffers)(*inputs)
    return jnp.mean(jnp.square(out.image)) + jnp.mean(jnp.square(out.raw_image))

  return parts_lib.measure(
    parts_lib.GRADIENT, jax.grad(objective), (*state, *inputs), repeats
  )[0]
