"""VGG16's features and LPIPS on them, in PyTorch. b batch, c channels."""

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512, 512)
_DEPTHS = (2, 2, 3, 3, 3)


class Lpips(nn.Module):
  """VGG16 up to so many feature layers, frozen."""

  def __init__(self, num_layers=5):
    super().__init__()
    self.parts, num = nn.ModuleList(), 3
    for width, depth in zip(_WIDTHS, _DEPTHS, strict=True):
      sizes = [num] + depth * [width]
      self.parts.append(
        nn.ModuleList(
          nn.Conv2d(a, b, 3, padding=1)
          for a, b in zip(sizes, sizes[1:], strict=False)
        )
      )
      num = width
    self.parts = self.parts[:num_layers]
    self.heads = nn.ParameterList(
      torch.full((width,), 1 / width) for width in _WIDTHS[:num_layers]
    )
    shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    for name, values in (("shift", shift), ("scale", scale)):
      self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1))
    self.requires_grad_(False)

  def features(self, image):
    """Returns the feature layers of an image (b 3 h w) in [-1, 1]."""
    x, features = (image - self.shift) / self.scale, []
    for i, part in enumerate(self.parts):
      x = functional.max_pool2d(x, 2) if i else x
      for conv in part:
        x = functional.relu(conv(x))
      features.append(x)
    return features

  def forward(self, image, other):
    """Returns the distance (b) of two images."""
    total = 0.0
    pairs = zip(self.features(image), self.features(other), strict=True)
    for head, (a, b) in zip(self.heads, pairs, strict=True):
      a, b = (functional.normalize(x, dim=1, eps=1e-10) for x in (a, b))
      total += torch.einsum("bchw,c->bhw", (a - b).square(), head).mean((1, 2))
    return total
