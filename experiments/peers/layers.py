"""StyleGAN2's layers in PyTorch, as EG3D runs them on a CPU.

b batch, c channels, h height, w width, s style size.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class Linear(nn.Module):
  """An affine map with an equalised learning rate."""

  def __init__(self, num_inputs, num_outputs, *, bias=0.0, lr_multiplier=1.0):
    super().__init__()
    weight = torch.randn(num_outputs, num_inputs) / lr_multiplier
    self.weight = nn.Parameter(weight)
    self.bias = nn.Parameter(torch.full((num_outputs,), bias / lr_multiplier))
    self.gain = lr_multiplier / math.sqrt(num_inputs)
    self.bias_gain = lr_multiplier

  def forward(self, x):
    return functional.linear(
      x, self.weight * self.gain, self.bias * self.bias_gain
    )


def leaky_relu(x):
  """Returns StyleGAN2's activation."""
  return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def low_pass(x, padding, gain):
  """Convolves each channel with [1, 3, 3, 1] both ways."""
  weights = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
  kernel = gain * torch.outer(weights, weights)
  channels = x.shape[1]
  kernel = kernel.expand(channels, 1, 4, 4)
  return functional.conv2d(functional.pad(x, padding), kernel, groups=channels)


def upsample(image):
  """Doubles an image (b c h w) between inserted zeros."""
  b, c, h, w = image.shape
  x = functional.pad(image.reshape(b, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1))
  return low_pass(x.reshape(b, c, 2 * h, 2 * w), (2, 1, 2, 1), 4)


def modulated(x, weight, styles, *, up=False, demodulate=True, fused=False):
  """Convolves with a kernel whose inputs are scaled for each example.

  Published: fused into grouped kernels for inference, else scales around a
  plain convolution.
  """
  b, c, h, w = x.shape
  scaled = weight[None] * styles[:, None, :, None, None]
  norm = None
  if demodulate:
    norm = scaled.square().sum((2, 3, 4)).add(1e-8).rsqrt()
  if fused:
    if demodulate:
      scaled = scaled * norm[..., None, None, None]
    x = x.reshape(1, b * c, h, w)
    kernel, groups = scaled.flatten(0, 1), b
  else:
    x = x * styles[..., None, None]
    kernel, groups = weight, 1
  if up:
    turned = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    y = functional.conv_transpose2d(x, turned, stride=2, groups=groups)
    y = low_pass(y, (1, 1, 1, 1), 4)
  else:
    padding = weight.shape[-1] // 2
    y = functional.conv2d(x, kernel, padding=padding, groups=groups)
  y = y.reshape(b, -1, *y.shape[2:])
  if norm is not None and not fused:
    y = y * norm[..., None, None]
  return y


class Styled(nn.Module):
  """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

  def __init__(self, num_inputs, num_outputs, style_size, side, *, up, noise):
    super().__init__()
    self.affine = Linear(style_size, num_inputs, bias=1.0)
    self.weight = nn.Parameter(torch.randn(num_outputs, num_inputs, 3, 3))
    self.bias = nn.Parameter(torch.zeros(num_outputs))
    self.up = up
    self.noise = noise
    if noise:
      self.register_buffer("noise_const", torch.randn(side, side))
      self.noise_strength = nn.Parameter(torch.zeros(()))

  def forward(self, x, w):
    fused = not self.training
    y = modulated(x, self.weight, self.affine(w), up=self.up, fused=fused)
    if self.noise:
      noise = self.noise_const
      if self.training:
        noise = torch.randn(len(y), 1, *y.shape[2:])
      y = y + noise * self.noise_strength
    return leaky_relu(y + self.bias[:, None, None])


class ToImage(nn.Module):
  """Modulated 1x1 convolution to an image."""

  def __init__(self, num_inputs, num_outputs, style_size):
    super().__init__()
    self.affine = Linear(style_size, num_inputs, bias=1.0)
    self.weight = nn.Parameter(torch.randn(num_outputs, num_inputs, 1, 1))
    self.bias = nn.Parameter(torch.zeros(num_outputs))
    self.gain = 1 / math.sqrt(num_inputs)

  def forward(self, x, w):
    styles = self.affine(w) * self.gain
    y = modulated(
      x, self.weight, styles, demodulate=False, fused=not self.training
    )
    return y + self.bias[:, None, None]


class Block(nn.Module):
  """Doubles the features, and adds to an image that is doubled likewise."""

  def __init__(
    self, num_inputs, num_outputs, num_image, style_size, side, noise
  ):
    super().__init__()
    sizes = style_size, side
    self.conv0 = Styled(num_inputs, num_outputs, *sizes, up=True, noise=noise)
    self.conv1 = Styled(num_outputs, num_outputs, *sizes, up=False, noise=noise)
    self.torgb = ToImage(num_outputs, num_image, style_size)

  def forward(self, x, image, ws):
    x = self.conv1(self.conv0(x, ws[0]), ws[1])
    return x, upsample(image) + self.torgb(x, ws[2])
