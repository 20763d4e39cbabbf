"""A frame of the tri-plane, part by part: the programs and their nominal work.

b batch, r rays, s samples along a ray, c channels of a plane.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from pir_jax.geometry import cameras, compositing, rays, sampling, triplane
from pir_jax.models import stylegan2, triplane_generator
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling.parts import Part
from pir_jax.runs.experiment import Experiment

RENDERER = "renderer, both passes"
FEATURES = "whole without super-resolution"
FRAME = "whole frame"
RATED = (FRAME, parts_lib.STEP)


def parts(config: triplane_generator.Config) -> list[Part]:
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


def nominal_gflop(config: triplane_generator.Config) -> dict[str, float]:
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


def measure(
  experiment: Experiment, repeats: int, training: bool
) -> Iterator[parts_lib.Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    experiment: of the tri-plane stage; its batch size is meant.
    repeats: of each part.
    training: whether gradients and a training step are timed as well.

  Raises:
    InputError: sizes that no network can have.
  """
  config, num_batch = experiment.stage.model, experiment.data.batch_size
  network = parts_lib.declare(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )
  state = parts_lib.numbers(network)
  results = parts_lib.conditions(config, num_batch)
  gflop = {k: num_batch * v for k, v in nominal_gflop(config).items()}
  yield from parts_lib.walk(
    parts(config), lambda s: network.bind(*s), state, results, gflop, repeats
  )
  if training:
    given = [results[name] for name in ("identity", "face", "view")]
    del results
    row = _gradient(network, state, given, repeats)
    yield row._replace(gflop=3 * gflop[FRAME])
    del state
    yield parts_lib.step(experiment, config, repeats)


def _gradient(network, state, given, repeats):
  """Of the squares of both images, by all of the generator's parameters."""

  def objective(params, buffers, *given):
    out = network.bind(params, buffers)(*given)
    return jnp.mean(jnp.square(out.image)) + jnp.mean(jnp.square(out.raw_image))

  return parts_lib.measured(
    parts_lib.GRADIENT, jax.grad(objective), (*state, *given), repeats
  )[0]
