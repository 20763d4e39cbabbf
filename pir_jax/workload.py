"""A frame of the tri-plane, part by part: the programs and their nominal work.

b batch, r rays, s samples along a ray, c channels of a plane.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pir_jax import blueprint, runs
from pir_jax.geometry import cameras, compositing, rays, sampling, triplane
from pir_jax.models import generator, stylegan2
from pir_jax.runtime import sharding, stopwatch
from pir_jax.stages import base
from pir_jax.types import Cameras, InputError

RENDERER = "renderer, both passes"
FEATURES = "whole without super-resolution"
FRAME = "whole frame"
GRADIENT = "forward and backward"
STEP = "training step"


class Part(NamedTuple):
  """A piece of the way from coefficients to a frame.

  Attributes:
    name: as printed.
    function: (generator, *what it takes) -> what it gives.
    takes: names of earlier parts' results or of `inputs`.
    gives: the name of its result; "" where no later part takes it.
  """

  name: str
  function: Callable[..., Any]
  takes: tuple[str, ...]
  gives: str = ""


def parts(config: generator.Config) -> list[Part]:
  """The parts in the order of the way, then the wholes that hold them."""
  sampled = config.renderer
  side = config.feature_resolution

  def cast(view):
    view = cameras.from_vector(view)
    lines = rays.cast(view, side)
    near, far = sampled.ray_start, sampled.ray_end
    shape = lines.origins.shape[:-1]
    return lines, sampling.stratified(near, far, sampled.num_coarse, shape)

  def place(_, view):
    lines, depths = cast(view)
    return rays.points_along(lines, depths).reshape(len(view), -1, 3)

  def lookup(_, planes, points):
    where = triplane.project(
      points * (2 / sampled.box_warp), layout=sampled.plane_layout
    )
    return triplane.lookup(triplane.border(planes), where)

  def decode(model, features):
    return _by_ray(model.renderer.decoder(features), side)

  def importance(_, view, coarse):
    depths = cast(view)[1]
    weights = compositing.interval_weights(coarse.density, depths)
    return sampling.importance(depths, weights, sampled.num_fine)

  def second(model, view, planes, depths):
    points = rays.points_along(cast(view)[0], depths)
    points = points.reshape(len(view), -1, 3)
    return _by_ray(model.renderer.sample(triplane.border(planes), points), side)

  def merge(_, view, coarse, depths, fine):
    every = zip(coarse, fine, strict=True)
    return compositing.render_merged(*every, (cast(view)[1], depths))

  def composite(_, view, coarse):
    return compositing.render(coarse.color, coarse.density, cast(view)[1])

  first = [
    Part("mapping", lambda m, i, e: m.map(i, e), ("identity", "face"), "ws"),
    Part("planes", lambda m, ws: m.planes(ws), ("ws",), "planes"),
    Part("rays and coarse points", place, ("view",), "points"),
    Part("plane lookup, coarse", lookup, ("planes", "points"), "features"),
    Part("decoder, coarse", decode, ("features",), "coarse"),
  ]
  if sampled.num_fine:
    taken = ("view", "planes", "depths")
    first += [
      Part("importance sampling", importance, ("view", "coarse"), "depths"),
      Part("lookup and decoder, fine", second, taken, "fine"),
      Part(
        "merge and compositing", merge, ("view", "coarse", "depths", "fine")
      ),
    ]
  else:
    first += [Part("compositing", composite, ("view", "coarse"))]

  def render(model, view, planes):
    found = model.renderer(planes, cameras.from_vector(view), side)
    return found._replace(
      feature=found.feature.reshape(len(view), side, side, -1)
    )

  def upsample(model, ws, rendering):
    return model.upsampler(rendering.feature, ws[:, -1])

  def features(model, identity, face, view):
    return model(identity, face, view, upsample=False).feature_image

  def frame(model, identity, face, view):
    out = model(identity, face, view)
    return out.feature_image, out.image

  given = ("identity", "face", "view")
  return [
    *first,
    Part(RENDERER, render, ("view", "planes"), "rendering"),
    Part("upsampler", upsample, ("ws", "rendering")),
    Part(FEATURES, features, given),
    Part(FRAME, frame, given),
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


def frontal(num_batch: int) -> Cameras:
  """Cameras in front of the head, a view of 2 atan(1/6) wide."""
  angle, distance = jnp.zeros(num_batch), jnp.full(num_batch, 2.7)
  intrinsics = jnp.array([[3.0, 0, 0.5], [0, 3.0, 0.5], [0, 0, 1]])
  return Cameras(
    cameras.orbit(angle, angle, distance),
    jnp.broadcast_to(intrinsics, (num_batch, 3, 3)),
  )


def inputs(
  config: generator.Config, num_batch: int
) -> dict[str, Float[Array, "b _"]]:
  """What the first parts take: coefficients of the mean face, and cameras."""
  return {
    "identity": jnp.zeros((num_batch, config.identity_size)),
    "face": jnp.zeros((num_batch, config.expression_size)),
    "view": cameras.to_vector(frontal(num_batch)),
  }


def numbers(network: base.Network) -> tuple[PyTree, PyTree]:
  """Parameters and buffers without meaning, from a normal distribution.

  Drawn on the host: a network's own beginning takes as long to compile as all
  else, and no program here is faster or slower for it.
  """
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32), x.dtype),
    jax.eval_shape(network.init, jax.random.key(0)),
  )


def nominal_gflop(config: generator.Config) -> dict[str, float]:
  """Billions of operations of a frame, by the name of its part.

  The algorithm's own, as published, whatever a program makes of it: two (a
  product and a sum) for each

  - weight of a linear layer, styles' included,
  - tap of a 3x3 convolution: 9 for an output pixel and a pair of channels, 9
    for an *input* pixel where it doubles the size; 1 of a 1x1 to-image,
  - plane, corner, channel and sample of a lookup,
  - channel and sample of compositing.

  Zeros around an image count as pixels. Low-passes, noise, activations, the
  kernels' scaling, ray and depth arithmetic are left out: 0 stands where
  nothing else is done.

  At the paper's size: planes 93.1, lookups 0.30, decoder 3.27, upsampler 196.0,
  all 292.7. In float32 121 MB of parameters are read, and at the least written
  once and read once: 123 MB of the planes' features, 102 MB of samples and
  403 MB of the upsampler's features: 1.4 GB, 210 operations for each byte.
  """
  counts = {"mapping": _mapping(config), "planes": _planes(config)}
  sampled, depth = config.renderer, config.plane_channels
  num_rays = config.feature_resolution**2
  coarse = num_rays * sampled.num_coarse
  fine = num_rays * sampled.num_fine
  lookup = 3 * 4 * depth
  decoder = sampled.hidden_size * (depth + 1 + depth)
  counts["rays and coarse points"] = 0
  counts["plane lookup, coarse"] = coarse * lookup
  counts["decoder, coarse"] = coarse * decoder
  last = (coarse + fine) * depth
  if fine:
    counts["importance sampling"] = 0
    counts["lookup and decoder, fine"] = fine * (lookup + decoder)
    counts["merge and compositing"] = last
  else:
    counts["compositing"] = last
  counts[RENDERER] = (coarse + fine) * (lookup + decoder) + last
  counts["upsampler"] = _upsampler(config)
  counts[FEATURES] = counts["mapping"] + counts["planes"] + counts[RENDERER]
  counts[FRAME] = counts[FEATURES] + counts["upsampler"]
  return {name: 2 * count / 1e9 for name, count in counts.items()}


def _mapping(config):
  sizes = [config.identity_size + config.expression_size]
  sizes += [config.w_size] * config.map_depth
  return sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))


def _block(before, after, num_image, side, style):
  """A StyleGAN2 block that doubles the size, to `side`."""
  up = 9 * (side // 2) ** 2 * before * after
  plain = 9 * side**2 * after**2
  return up + plain + side**2 * after * num_image + style * (before + 2 * after)


def _planes(config):
  side, num_image = config.constant_side, 3 * config.plane_channels

  def width(side):
    return stylegan2.num_channels(side, config.channel_base, config.channel_max)

  first = width(side)
  total = side**2 * first * (9 * first + num_image)
  total += 2 * config.w_size * first
  while side < config.plane_resolution:
    side *= 2
    total += _block(
      width(side // 2), width(side), num_image, side, config.w_size
    )
  return total


def _upsampler(config):
  first, second = config.sr_channels
  style, side = config.w_size, config.resolution
  return _block(config.plane_channels, first, 3, side // 2, style) + _block(
    first, second, 3, side, style
  )


class Row(NamedTuple):
  """What was measured of one part.

  Attributes:
    name: of the part.
    timing: of its repeats.
    program: that was timed.
    gflop: nominal, of the whole batch; None where none are counted.
  """

  name: str
  timing: stopwatch.Timing
  program: stopwatch.Program
  gflop: float | None


def measure(
  experiment: runs.Experiment, repeats: int, training: bool
) -> Iterator[Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the tri-plane stage; its batch size is meant.
    repeats: of each part.
    training: whether gradients and a training step are timed as well.

  Raises:
    InputError: sizes that no network can have.
  """
  config, num_batch = experiment.stage.model, experiment.data.batch_size
  try:
    network = base.Network(
      lambda rngs: generator.TriPlaneGenerator(config, rngs=rngs)
    )
  except ValueError as error:
    raise InputError(f"{error}") from error
  state = numbers(network)
  results = inputs(config, num_batch)
  gflop = nominal_gflop(config)
  for part in parts(config):
    given = [results[name] for name in part.takes]

    def function(state, *given, part=part):
      return part.function(network.bind(*state), *given)

    row, result = _measured(part.name, function, (state, *given), repeats)
    yield row._replace(gflop=num_batch * gflop[part.name] or None)
    if part.gives:
      results[part.gives] = result
  if training:
    given = [results[name] for name in ("identity", "face", "view")]
    del results
    yield _gradient(network, state, given, repeats, 3 * gflop[FRAME])
    del state
    yield _step(experiment, repeats)


def _measured(name, function, given, repeats):
  program = stopwatch.build(jax.jit(function).lower(*given))
  timing, result = stopwatch.clock(lambda _: program.run(*given), None, repeats)
  return Row(name, timing, program, None), result


def _gradient(network, state, given, repeats, gflop):
  """Of the squares of both images, by all of the generator's parameters."""

  def objective(params, buffers, *given):
    out = network.bind(params, buffers)(*given)
    return jnp.mean(jnp.square(out.image)) + jnp.mean(jnp.square(out.raw_image))

  row, _ = _measured(GRADIENT, jax.grad(objective), (*state, *given), repeats)
  return row._replace(gflop=len(given[0]) * gflop)


def _step(experiment, repeats):
  """The stage's own step, losses and optimiser included, on empty pictures.

  Its first phase: what a config asks for now and then besides is left out.
  """
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  stage = blueprint.make_stage(experiment, experiment.stage.model, mesh)
  batch = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    blueprint.make_batch(experiment, stage),
  )
  # A camera of zeros has no ray.
  view = frontal(experiment.data.batch_size)
  batch = batch._replace(
    cameras=jax.tree.map(
      lambda x, like: jax.device_put(x, like.sharding), view, batch.cameras
    )
  )
  step = stage.compiled[0]
  key = jax.random.key(1)
  state = stage.init(jax.random.key(0))
  program = stopwatch.build(step.lower(state, batch, key))
  timing, _ = stopwatch.clock(
    lambda carried: program.run(carried[0], stage.frozen, batch, key),
    (state, {}),
    repeats,
  )
  return Row(STEP, timing, program, None)
