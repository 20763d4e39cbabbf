"""pix2pixHD's LocalEnhancer and MultiscaleDiscriminator in PyTorch.

At the sizes of our Configs; the paper's feature image comes in before the
coarse residual blocks. b batch, c channels, h height, w width.
"""

import torch
from torch import nn
from torch.nn import functional

from pir_jax.models import inpainting, patch_discriminator


def _normalised(conv, channels):
  return [conv, nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


def _down(channels):
  conv = nn.Conv2d(channels, 2 * channels, 3, 2, 1)
  return _normalised(conv, 2 * channels)


def _up(num_inputs, num_outputs):
  conv = nn.ConvTranspose2d(num_inputs, num_outputs, 3, 2, 1, output_padding=1)
  return _normalised(conv, num_outputs)


class Residual(nn.Module):
  """Two normalised convolutions, added to the input."""

  def __init__(self, channels):
    super().__init__()
    self.conv_block = nn.Sequential(
      nn.ReflectionPad2d(1),
      *_normalised(nn.Conv2d(channels, channels, 3), channels),
      nn.ReflectionPad2d(1),
      nn.Conv2d(channels, channels, 3),
      nn.InstanceNorm2d(channels),
    )

  def forward(self, x):
    return x + self.conv_block(x)


def _first(num_inputs, channels):
  conv = nn.Conv2d(num_inputs, channels, 7)
  return [nn.ReflectionPad2d(3), *_normalised(conv, channels)]


def halve(image):
  """Returns the next level of the pyramid."""
  return functional.avg_pool2d(image, 3, 2, 1, count_include_pad=False)


class Generator(nn.Module):
  """Masked frame and feature image to the frame."""

  def __init__(self, config: inpainting.Config):
    super().__init__()
    num = config.num_downsamples
    fine, coarse = config.channels, 2 * config.channels
    wide = coarse * 2**num + config.feature_channels
    widths = [coarse * 2**i for i in range(num)]
    begin = _first(config.input_channels, coarse)
    begin += [layer for width in widths for layer in _down(width)]
    self.start = len(begin)
    ups = zip([wide, *widths[:0:-1]], widths[::-1], strict=True)
    self.model = nn.Sequential(
      *begin,
      *(Residual(wide) for _ in range(config.num_global_blocks)),
      *(layer for pair in ups for layer in _up(*pair)),
    )
    self.model1_1 = nn.Sequential(
      *_first(config.input_channels, fine), *_down(fine)
    )
    self.model1_2 = nn.Sequential(
      *(Residual(coarse) for _ in range(config.num_local_blocks)),
      *_up(coarse, fine),
      nn.ReflectionPad2d(3),
      nn.Conv2d(fine, config.output_channels, 7),
      nn.Tanh(),
    )

  def forward(self, image, feature):
    x = self.model[: self.start](halve(image))
    coarse = self.model[self.start :](torch.cat([x, feature], 1))
    return self.model1_2(self.model1_1(image) + coarse)


class Discriminator(nn.Module):
  """Patches of the frame and of its halves; keeps its features."""

  def __init__(self, config: patch_discriminator.Config):
    super().__init__()
    num = config.num_layers
    widths = [
      min(config.channels * 2**i, config.max_channels) for i in range(num + 1)
    ]
    sizes = [config.input_channels, *widths, 1]
    self.num_scales, self.num_layers = config.num_scales, num + 2
    for scale in range(config.num_scales):
      for i in range(num + 2):
        conv = nn.Conv2d(sizes[i], sizes[i + 1], 4, 2 if i < num else 1, 2)
        layer = [conv]
        if 0 < i <= num:
          layer.append(nn.InstanceNorm2d(sizes[i + 1]))
        if i <= num:
          layer.append(nn.LeakyReLU(0.2, inplace=True))
        self.add_module(f"scale{scale}_layer{i}", nn.Sequential(*layer))

  def forward(self, image):
    """Returns every layer's output of every scale, the finest first."""
    scales = []
    for scale in reversed(range(self.num_scales)):
      x, outputs = image, []
      for i in range(self.num_layers):
        x = getattr(self, f"scale{scale}_layer{i}")(x)
        outputs.append(x)
      scales.append(outputs)
      image = halve(image)
    return scales
