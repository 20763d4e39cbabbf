"""EG3D's generator in PyTorch, at the sizes of our Config.

The mapping network takes identity and expression, as ours does. The renderer
reads planes by `grid_sample`, and sorts the two passes together, as published.
b batch, c channels, r rays, s samples along a ray.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from experiments.peers import layers
from pir_jax.geometry import triplane
from pir_jax.models import stylegan2, triplane_generator


class Synthesis(nn.Module):
  """Styles to the image of planes."""

  def __init__(self, config):
    super().__init__()
    first = config.constant_side
    num = round(math.log2(config.plane_resolution / first)) + 1
    self.sides = [first << i for i in range(num)]
    widths = [
      stylegan2.num_channels(side, config.channel_base, config.channel_max)
      for side in self.sides
    ]
    image, style, noise = 3 * config.plane_channels, config.w_size, config.noise
    for i, side in enumerate(self.sides):
      if i:
        block = layers.Block(
          widths[i - 1], widths[i], image, style, side, noise
        )
      else:
        block = nn.Module()
        block.const = nn.Parameter(torch.randn(widths[0], side, side))
        block.conv1 = layers.Styled(
          widths[0], widths[0], style, side, up=False, noise=noise
        )
        block.torgb = layers.ToImage(widths[0], image, style)
      self.add_module(f"b{side}", block)

  def forward(self, w):
    block = getattr(self, f"b{self.sides[0]}")
    x = block.const.expand(len(w), *block.const.shape)
    x = block.conv1(x, w)
    image = block.torgb(x, w)
    for side in self.sides[1:]:
      x, image = getattr(self, f"b{side}")(x, image, (w, w, w))
    return image


class Decoder(nn.Module):
  """Plane features to colour and density."""

  def __init__(self, num_channels, hidden):
    super().__init__()
    self.net = nn.Sequential(
      layers.Linear(num_channels, hidden),
      nn.Softplus(),
      layers.Linear(hidden, 1 + num_channels),
    )

  def forward(self, features):
    y = self.net(features)
    return torch.sigmoid(y[..., 1:]) * 1.002 - 0.001, y[..., :1]


class Upsampler(nn.Module):
  """Feature image to the face image, by two blocks."""

  def __init__(self, config):
    super().__init__()
    first, second = config.sr_channels
    style, side = config.w_size, config.resolution
    self.side = side // 4
    self.block0 = layers.Block(
      config.plane_channels, first, 3, style, side // 2, False
    )
    self.block1 = layers.Block(first, second, 3, style, side, False)

  def forward(self, features, w):
    x = features
    if x.shape[-1] != self.side:
      x = functional.interpolate(
        x, size=(self.side, self.side), mode="bilinear", align_corners=False
      )
    x, image = self.block0(x, x[:, :3], (w, w, w))
    return self.block1(x, image, (w, w, w))[1]


class Generator(nn.Module):
  """Mapping, planes, renderer and upsampler.

  In training, samples and noise are random; else they are ours without a key.
  """

  def __init__(self, config: triplane_generator.Config):
    super().__init__()
    self.config = config
    size = config.identity_size + config.expression_size
    sizes = [size] + config.map_depth * [config.w_size]
    self.backbone = nn.Module()
    self.backbone.mapping = nn.ModuleList(
      layers.Linear(a, b, lr_multiplier=0.01)
      for a, b in zip(sizes, sizes[1:], strict=False)
    )
    self.backbone.synthesis = Synthesis(config)
    self.decoder = Decoder(config.plane_channels, config.renderer.hidden_size)
    self.superresolution = Upsampler(config)

  def forward(self, identity, expression, camera, *, upsample=True):
    """Returns (I_F, raw image, weight sum, face image)."""
    w = torch.cat([identity, expression], -1)
    for layer in self.backbone.mapping:
      w = layers.leaky_relu(layer(w))
    return self.synthesize(w, camera, upsample=upsample)

  def synthesize(self, w, camera, *, upsample=True):
    """Renders styles (b s) through cameras (b 25)."""
    side = self.config.feature_resolution
    planes = self.backbone.synthesis(w)
    planes = planes.unflatten(1, (3, self.config.plane_channels))
    feature, weight_sum = self._render(planes, camera, side)
    feature = feature.transpose(1, 2).unflatten(2, (side, side))
    image = self.superresolution(feature, w) if upsample else None
    shape = len(w), 1, side, side
    return feature, feature[:, :3], weight_sum.reshape(shape), image

  def _render(self, planes, camera, side):
    config = self.config.renderer
    origin, direction = _rays(camera, side)
    step = (config.ray_end - config.ray_start) / (config.num_coarse - 1)
    starts = torch.linspace(config.ray_start, config.ray_end, config.num_coarse)
    shape = *direction.shape[:2], config.num_coarse
    share = torch.rand(shape) if self.training else torch.full(shape, 0.5)
    depths = starts + step * share
    if config.ray_reference:
      nearer = config.ray_reference - origin.norm(dim=-1)
      depths = depths - nearer[..., None]
    color, density = self._sample(planes, origin, direction, depths)
    if config.num_fine:
      with torch.no_grad():
        weights = _weights(density, depths)
        fine = self._importance(depths, weights)
      more, denser = self._sample(planes, origin, direction, fine)
      depths = torch.cat([depths, fine], -1)
      depths, order = depths.sort(-1)
      color = torch.cat([color, more], -2)
      color = color.gather(-2, order[..., None].expand(color.shape))
      density = torch.cat([density, denser], -1).gather(-1, order)
    weights = _weights(density, depths)
    middle = 0.5 * (color[..., 1:, :] + color[..., :-1, :])
    feature = (weights[..., None] * middle).sum(-2)
    return 2 * feature - 1, weights.sum(-1)

  def _sample(self, planes, origin, direction, depths):
    config = self.config.renderer
    points = origin[..., None, :] + depths[..., None] * direction[..., None, :]
    points = points.flatten(1, 2) * (2 / config.box_warp)
    axes = triplane.LAYOUTS[config.plane_layout]
    where = torch.stack([points[..., pair] for pair in map(list, axes)], 1)
    features = functional.grid_sample(
      planes.flatten(0, 1),
      where.flatten(0, 1)[:, None],
      mode="bilinear",
      padding_mode="zeros",
      align_corners=False,
    )
    features = features[:, :, 0].transpose(1, 2).unflatten(0, (-1, 3))
    mean = config.plane_reduce == "mean"
    features = features.mean(1) if mean else features.sum(1)
    color, density = self.decoder(features)
    shape = depths.shape
    return color.reshape(*shape, -1), density.reshape(shape)

  def _importance(self, depths, weights):
    """Samples depths where the weights are, by their distribution."""
    padded = torch.cat([weights[..., :1], weights, weights[..., -1:]], -1)
    peaks = torch.maximum(padded[..., :-1], padded[..., 1:])
    weights = 0.5 * (peaks[..., :-1] + peaks[..., 1:]) + 0.01
    mass = weights + 1e-5
    mass = mass / mass.sum(-1, keepdim=True)
    cdf = functional.pad(mass.cumsum(-1), (1, 0))
    num = self.config.renderer.num_fine
    shape = *depths.shape[:-1], num
    if self.training:
      places = torch.rand(shape).sort(-1)[0]
    else:
      places = torch.linspace(0, 1, num).expand(shape).contiguous()
    above = torch.searchsorted(cdf, places, right=True)
    above = above.clamp(1, cdf.shape[-1] - 1)
    low, high = (cdf.gather(-1, i) for i in (above - 1, above))
    near, far = (depths.gather(-1, i) for i in (above - 1, above))
    share = ((places - low) / (high - low)).clamp(0, 1)
    return near + share * (far - near)


def _rays(camera, side):
  pose = camera[:, :16].reshape(-1, 4, 4)
  k = camera[:, 16:].reshape(-1, 3, 3)
  centre = (torch.arange(side) + 0.5) / side
  v, u = (x.flatten() for x in torch.meshgrid(centre, centre, indexing="ij"))
  y = (v - k[:, 1, 2, None]) / k[:, 1, 1, None]
  x = (u - k[:, 0, 2, None] - k[:, 0, 1, None] * y) / k[:, 0, 0, None]
  local = torch.stack([x, y, torch.ones_like(x)], -1)
  direction = local @ pose[:, :3, :3].transpose(1, 2)
  direction = functional.normalize(direction, dim=-1)
  return pose[:, None, :3, 3].expand(direction.shape), direction


def _weights(density, depths):
  """Returns the chance that the ray ends in each interval."""
  middle = 0.5 * (density[..., 1:] + density[..., :-1])
  optical = functional.softplus(middle - 1) * depths.diff(dim=-1)
  alpha = 1 - torch.exp(-optical)
  left = torch.cumprod(1 - alpha + 1e-10, -1)
  before = functional.pad(left[..., :-1], (1, 0), value=1.0)
  return alpha * before
