"""Renders three feature planes through a camera.

b batch, p the three planes, h height, w width, c channels of a plane and of a
colour, r rays, s samples along a ray, n points, i side of the feature image.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax import ranges
from pir_jax.geometry import compositing, rays, sampling, triplane
from pir_jax.models import stylegan2_layers
from pir_jax.ops import activations
from pir_jax.types import Cameras, ConfigError


@ranges.declare(
  num_fine=ranges.COUNT_OR_NONE,
  ray_start=ranges.POSITIVE,
  ray_end=ranges.POSITIVE,
  box_warp=ranges.POSITIVE,
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How a volume is sampled.

  Attributes:
    num_coarse: stratified samples along a ray.
    num_fine: further samples where the coarse weights are large; 0 for none.
    ray_start: distance from the camera at which sampling starts, head units.
    ray_end: distance at which it ends.
    ray_reference: distance of a camera from the origin for which start and end
      are meant; for others both are shifted, so that the rays of a camera that
      comes nearer still cover the head. 0 takes them as they are, as EG3D does,
      whose cameras are all at 2.7.
    box_warp: side of the cube that the planes cover, centred at the origin.
    plane_layout: "fixed" (xy, xz, yz), or "eg3d" for that paper's weights.
    plane_reduce: "sum" (as in the paper) or "mean" (as in EG3D's code).
    fine_bins: intervals between coarse samples in which the fine ones lie:
      "own", or "eg3d", which for that paper's weights are half of one nearer.
    hidden_size: width of the decoder's hidden layer.
    remat: recompute the samples in the backward pass instead of storing them.
  """

  num_coarse: int = 48
  num_fine: int = 48
  ray_start: float = 2.25
  ray_end: float = 3.3
  ray_reference: float = 2.7
  box_warp: float = 1.0
  plane_layout: str = "fixed"
  plane_reduce: str = "sum"
  fine_bins: str = "own"
  hidden_size: int = 64
  remat: bool = False


class Samples(NamedTuple):
  """The decoder's colours and densities of points.

  Attributes:
    color: in about [0, 1], of the decoder's dtype.
    density: before the activation of `compositing`; float32.
  """

  color: Float[Array, "*b c"]
  density: Float[Array, "*b"]


class Decoder(nnx.Module):
  """Plane features -> colour and density: one hidden layer, softplus."""

  def __init__(
    self,
    num_channels: int,
    hidden_size: int,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs,
  ):
    self.hidden = stylegan2_layers.Linear(num_channels, hidden_size, rngs=rngs)
    self.output = stylegan2_layers.Linear(
      hidden_size, 1 + num_channels, rngs=rngs
    )
    self.dtype = dtype

  def __call__(self, features: Float[Array, "*b c"]) -> Samples:
    features = features.astype(self.dtype)
    output = self.output(activations.softplus(self.hidden(features)))
    # Slightly wider than [0, 1], so that pure black and white are reachable.
    color = jax.nn.sigmoid(output[..., 1:]) * 1.002 - 0.001
    return Samples(color, output[..., 0].astype(jnp.float32))


class Renderer(nnx.Module):
  """Samples planes along rays, in two passes, and composites."""

  def __init__(
    self,
    config: Config,
    num_channels: int,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs,
  ):
    known = {"plane_reduce": ("sum", "mean"), "fine_bins": ("own", "eg3d")}
    for name, values in known.items():
      if (value := getattr(config, name)) not in values:
        raise ConfigError(f"{name}={value!r} must be one of {values}")
    if config.ray_end <= config.ray_start:
      raise ConfigError(
        f"ray_end={config.ray_end:g} must be beyond "
        f"ray_start={config.ray_start:g}"
      )
    self.config = config
    self.decoder = Decoder(
      num_channels, config.hidden_size, dtype=dtype, rngs=rngs
    )

  def sample(
    self,
    bordered: Float[Array, "b 3 h2 w2 c"],
    points: Float[Array, "b n 3"],
  ) -> Samples:
    """Decodes world points; the planes have passed `triplane.border`."""
    scaled = points * (2 / self.config.box_warp)
    where = triplane.project(scaled, layout=self.config.plane_layout)
    features = triplane.lookup(bordered, where)
    if self.config.plane_reduce == "mean":
      features /= 3
    return self.decoder(features)

  def __call__(
    self,
    planes: Float[Array, "b 3 h w c"],
    cameras: Cameras,
    resolution: int,
    *,
    key: Key[Array, ""] | None = None,
  ) -> compositing.Rendering:
    """Renders resolution x resolution rays, row by row; colours in [-1, 1]."""
    config = self.config
    keys = (None, None) if key is None else jax.random.split(key)
    lines = rays.cast(cameras, resolution)
    bordered = triplane.border(planes)

    def sample(bordered, depths):
      num_batch, num_rays, num_samples = depths.shape
      points = rays.points_along(lines, depths).reshape(num_batch, -1, 3)
      color, density = self.sample(bordered, points)
      shape = (num_batch, num_rays, num_samples)
      return color.reshape(*shape, -1), density.reshape(shape)

    if config.remat:
      sample = jax.checkpoint(sample)
    depths = sampling.stratified(
      config.ray_start,
      config.ray_end,
      config.num_coarse,
      lines.origins.shape[:-1],
      key=keys[0],
    )
    if config.ray_reference:
      origins = jnp.asarray(cameras.pose)[:, :3, 3]
      nearer = config.ray_reference - jnp.linalg.norm(origins, axis=-1)
      depths -= nearer[:, None, None]
    color, density = sample(bordered, depths)
    if not config.num_fine:
      result = compositing.render(color, density, depths)
    else:
      weights = compositing.interval_weights(density, depths)
      fine_depths = sampling.importance(
        depths,
        weights,
        config.num_fine,
        as_eg3d=config.fine_bins == "eg3d",
        key=keys[1],
      )
      fine_color, fine_density = sample(bordered, fine_depths)
      result = compositing.render_merged(
        (color, fine_color), (density, fine_density), (depths, fine_depths)
      )
    return result._replace(feature=2 * result.feature - 1)
