"""The implicit face: identity and expression -> tri-plane -> feature image.

b batch, i identity, e expression, k styles, s style size, p the three planes,
h height, w width, c channels of a plane, r side of the feature image, n points.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax import ranges
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.geometry import triplane
from pir_jax.models import renderer as renderer_lib
from pir_jax.models import stylegan2, stylegan2_layers
from pir_jax.types import ConfigError


@ranges.declare(
  map_depth=ranges.Range(1, 100),
  channel_base=ranges.COUNT,
  plane_channels=ranges.Range(3, 2**16),
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Sizes of the tri-plane generator.

  Attributes:
    identity_size: coefficients of the face's shape.
    expression_size: coefficients of its expression.
    map_depth: layers of the mapping network (the paper leaves it open).
    w_size: width of the style.
    channel_base: features at side n have channel_base / n channels,
    channel_max: but never more than this.
    constant_side: of the learned constant the planes grow from; 4 in EG3D.
      Larger is coarser control and far quicker learning of one person.
    plane_resolution: side of a plane.
    plane_channels: channels of a plane and of the feature image.
    feature_resolution: side of the feature image, in rays.
    resolution: side of the upsampled image; a power of two.
    sr_channels: features of the two upsampling blocks.
    noise: whether the planes' network has noise inputs, as EG3D's does.
    dtype: of the activations in the convolutions, of the planes' features at a
      point and in the volume's decoder.
    remat: for the gradient only the inputs of every convolution and of the
      volume's samples are kept; the rest is computed again.
    renderer: how the volume is sampled.
  """

  identity_size: int = 80
  expression_size: int = 64
  map_depth: int = 2
  w_size: int = 512
  channel_base: int = 32768
  channel_max: int = 512
  constant_side: int = 4
  plane_resolution: int = 256
  plane_channels: int = 32
  feature_resolution: int = 64
  resolution: int = 512
  sr_channels: tuple[int, int] = (256, 128)
  noise: bool = True
  dtype: str = "float32"
  remat: bool = False
  renderer: renderer_lib.Config = dataclasses.field(
    default_factory=renderer_lib.Config
  )


class TriPlaneOutput(NamedTuple):
  """All that the generator makes on its way to an image.

  Attributes:
    planes: features on (x, y), (x, z), (y, z), rows then columns.
    feature_image: I_F, in about [-1, 1]; -1 where a ray meets nothing.
    depth: expected distance from the camera, in head units.
    weight_sum: how much of each ray ends in matter.
    raw_image: the first three channels of the feature image, as RGB.
    image: I_face; None when it was not asked for.
  """

  planes: Float[Array, "b 3 h w c"]
  feature_image: Float[Array, "b r r c"]
  depth: Float[Array, "b r r"]
  weight_sum: Float[Array, "b r r"]
  raw_image: Float[Array, "b r r 3"]
  image: Float[Array, "b h2 w2 3"] | None


class Upsampler(nnx.Module):
  """Feature image and its RGB -> image: a resize, then two StyleGAN2 blocks."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    first, second = config.sr_channels
    half = config.resolution // 2

    def block(num_inputs, num_outputs, side):
      return stylegan2_layers.SynthesisBlock(
        num_inputs,
        num_outputs,
        3,
        config.w_size,
        side,
        noise=False,
        # A picture, not geometry: nothing is built on its fifth digit.
        quick=True,
        remat=config.remat,
        rngs=rngs,
      )

    self.block0 = block(config.plane_channels, first, half)
    self.block1 = block(first, second, config.resolution)
    self.side = config.resolution // 4
    self.dtype = config.dtype

  def __call__(
    self, features: Float[Array, "b r r c"], w: Float[Array, "b s"]
  ) -> Float[Array, "b h w 3"]:
    x = features
    if x.shape[1] != self.side:
      shape = (x.shape[0], self.side, self.side, x.shape[3])
      x = jax.image.resize(x, shape, "bilinear")
    image = x[..., :3]
    x = x.astype(self.dtype)
    ws = jnp.repeat(w[:, None], 3, 1).astype(self.dtype)
    x, image = self.block0(x, image, ws)
    return self.block1(x, image, ws)[1]


class TriPlaneGenerator(nnx.Module):
  """Mapping, planes, renderer and upsampler."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    if config.plane_channels < 3:
      raise ConfigError(
        f"plane_channels={config.plane_channels} must be at least 3: the first "
        "three are the raw image"
      )
    self.config = config
    self.mapping = stylegan2.Mapping(
      config.identity_size + config.expression_size,
      config.w_size,
      config.map_depth,
      rngs=rngs,
    )
    self.backbone = stylegan2.Synthesis(
      config.w_size,
      config.plane_resolution,
      3 * config.plane_channels,
      channel_base=config.channel_base,
      constant_side=config.constant_side,
      channel_max=config.channel_max,
      noise=config.noise,
      dtype=config.dtype,
      remat=config.remat,
      rngs=rngs,
    )
    sampled = dataclasses.replace(
      config.renderer, remat=config.remat or config.renderer.remat
    )
    self.renderer = renderer_lib.Renderer(
      sampled, config.plane_channels, dtype=config.dtype, rngs=rngs
    )
    self.upsampler = Upsampler(config, rngs=rngs)

  def map(
    self, identity: Float[Array, "b i"], expression: Float[Array, "b e"]
  ) -> Float[Array, "b k s"]:
    """Coefficients, standardised by the caller -> one style for every layer."""
    w = self.mapping(jnp.concatenate([identity, expression], -1))
    return jnp.repeat(w[:, None], self.backbone.num_styles, 1)

  def planes(
    self, ws: Float[Array, "b k s"], *, key: Key[Array, ""] | None = None
  ) -> Float[Array, "b 3 h w c"]:
    """Styles -> the three feature planes."""
    image = self.backbone(ws, key=key)
    planes = image.reshape(*image.shape[:3], 3, self.config.plane_channels)
    return jnp.moveaxis(planes, 3, 1)

  def density(
    self, planes: Float[Array, "b 3 h w c"], points: Float[Array, "b n 3"]
  ) -> Float[Array, "b n"]:
    """Density, before its activation, at world points."""
    return self.renderer.sample(triplane.border(planes), points).density

  def synthesize(
    self,
    ws: Float[Array, "b k s"],
    cameras: Float[Array, "b 25"],
    *,
    key: Key[Array, ""] | None = None,
    upsample: bool = True,
  ) -> TriPlaneOutput:
    """Renders styles through cameras (`geometry.cameras.to_vector`).

    With a key the noise and the samples along the rays are random.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    planes = self.planes(ws, key=keys[0])
    side = self.config.feature_resolution
    rendering = self.renderer(
      planes, cameras_lib.from_vector(cameras), side, key=keys[1]
    )
    shape = (ws.shape[0], side, side)
    feature_image = rendering.feature.reshape(*shape, -1)
    return TriPlaneOutput(
      planes=planes,
      feature_image=feature_image,
      depth=rendering.depth.reshape(shape),
      weight_sum=rendering.weight_sum.reshape(shape),
      raw_image=feature_image[..., :3],
      image=self.upsampler(feature_image, ws[:, -1]) if upsample else None,
    )

  def __call__(
    self,
    identity: Float[Array, "b i"],
    expression: Float[Array, "b e"],
    cameras: Float[Array, "b 25"],
    *,
    key: Key[Array, ""] | None = None,
    upsample: bool = True,
  ) -> TriPlaneOutput:
    """`map`, then `synthesize`."""
    ws = self.map(identity, expression)
    return self.synthesize(ws, cameras, key=key, upsample=upsample)
