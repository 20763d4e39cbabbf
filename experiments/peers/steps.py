"""Training steps of the three stages in PyTorch, on random batches.

The losses of our Configs, the order of the published code: pix2pixHD runs its
discriminator on the image twice, once for each network. Adam is PyTorch's
fused one. All images are (b c h w), of side `resolution`.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional

from experiments.peers import eg3d, pix2pixhd, speech, vgg
from pir_jax.losses import perceptual
from pir_jax.models import faceformer, triplane_generator, wav2vec2
from pir_jax.runtime import optim
from pir_jax.stages import expression, inpainting, triplane


def conditions(config: triplane_generator.Config, num_batch: int) -> tuple:
  """Returns identity, expression and frontal cameras."""
  pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
  pose[2, 3] = 2.7
  k = torch.tensor([3.0, 0, 0.5, 0, 3.0, 0.5, 0, 0, 1])
  camera = torch.cat([pose.flatten(), k]).expand(num_batch, -1)
  return (
    torch.randn(num_batch, config.identity_size),
    torch.randn(num_batch, config.expression_size),
    camera,
  )


def _optimizer(config: optim.Config, *networks) -> torch.optim.Adam:
  parameters = [
    p for network in networks for p in network.parameters() if p.requires_grad
  ]
  return torch.optim.Adam(
    parameters,
    config.learning_rate,
    (config.b1, config.b2),
    config.eps,
    fused=True,
  )


def _average(network) -> list[torch.Tensor]:
  return [p.detach().clone() for p in network.parameters()]


@torch.no_grad()
def _update_average(average, network, decay):
  torch._foreach_lerp_(average, list(network.parameters()), 1 - decay)


def _crop(images, size):
  side = images[0].shape[-1]
  if not size or size >= side:
    return images
  row, column = torch.randint(side - size + 1, (2,)).tolist()
  return [x[..., row : row + size, column : column + size] for x in images]


def _weighted_l1(image, target, weight):
  gap = (image - target).abs().mean(1, keepdim=True)
  return ((gap * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()


def of_triplane(
  config: triplane.Config, num_batch: int, resolution: int
) -> Callable[[], None]:
  """Returns stage 2's generator step."""
  network = eg3d.Generator(config.model).train()
  lpips = vgg.Lpips(config.perceptual_layers)
  optimizer, average = _optimizer(config.optim, network), _average(network)
  inputs = conditions(config.model, num_batch)
  image = torch.rand(num_batch, 3, resolution, resolution) * 2 - 1
  head = torch.ones(num_batch, 1, resolution, resolution)
  mouth = torch.zeros_like(head)
  weights = config.weights

  def step():
    _, raw, weight_sum, face = network(*inputs)
    factor = resolution // raw.shape[-1]
    target = head * image - (1 - head)
    weight = head + (1 - head) * config.empty_weight
    weight = weight + mouth * config.mouth_weight
    small = [functional.avg_pool2d(x, factor) for x in (target, weight, head)]
    composed = head * face + (1 - head) * image
    loss = (
      weights.image * _weighted_l1(face, target, weight)
      + weights.raw_image * _weighted_l1(raw, *small[:2])
      + weights.silhouette * (weight_sum - small[2]).abs().mean()
    )
    pair = _crop((composed, image), config.perceptual_size)
    loss = loss + weights.perceptual * lpips(*pair).mean()
    if weights.raw_perceptual:
      raw = small[2] * raw + (1 - small[2]) * small[0]
      loss = loss + weights.raw_perceptual * lpips(raw, small[0]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    _update_average(average, network, config.ema_decay)

  return step


def of_inpainting(
  config: inpainting.Config,
  renderer: triplane_generator.Config,
  num_batch: int,
  resolution: int,
) -> Callable[[], None]:
  """Returns stage 3's step of both networks."""
  model = dataclasses.replace(
    config.model, feature_channels=renderer.plane_channels
  )
  planes = eg3d.Generator(renderer).eval()
  network = pix2pixhd.Generator(model)
  discriminator = pix2pixhd.Discriminator(config.discriminator)
  features = vgg.Lpips(config.perceptual_layers)
  optimizer = _optimizer(config.optim, network)
  adversary = _optimizer(config.discriminator_optim, discriminator)
  average = _average(network)
  inputs = conditions(renderer, num_batch)
  image = torch.rand(num_batch, 3, resolution, resolution) * 2 - 1
  mask = torch.ones(num_batch, 1, resolution, resolution)
  mask[..., : resolution // 2, :] = 0
  masked = torch.where(mask > 0, config.blank, image)
  mouth = mask
  weights = config.weights

  def judge(picture):
    return discriminator(torch.cat([masked, picture], 1))

  def least_squares(scales, label):
    return sum((scale[-1] - label).square().mean() for scale in scales)

  def step():
    with torch.no_grad():
      feature = planes(*inputs, upsample=False)[0]
    fake = network(masked, feature)
    loss = weights.pixel * _weighted_l1(
      fake, image, 1 + mask * config.mask_weight
    )
    if weights.mouth:
      loss = loss + weights.mouth * _weighted_l1(fake, image, mouth)
    ours, theirs = map(
      features.features, _crop((fake, image), config.perceptual_size)
    )
    pairs = zip(perceptual.LAYER_WEIGHTS, ours, theirs, strict=False)
    for weight, a, b in pairs:
      gap = (a - b.detach()).abs().mean()
      loss = loss + weights.perceptual * weight * gap
    detached, real = judge(fake.detach()), judge(image)
    by_adversary = 0.5 * (
      least_squares(detached, 0.0) + least_squares(real, 1.0)
    )
    seen = judge(fake)
    loss = loss + weights.adversarial * least_squares(seen, 1.0)
    share = weights.feature_matching * 4 / (len(seen[0]) - 1) / len(seen)
    for scale, other in zip(seen, real, strict=True):
      for a, b in zip(scale[:-1], other[:-1], strict=True):
        loss = loss + share * (a - b.detach()).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    adversary.zero_grad()
    by_adversary.backward()
    adversary.step()
    _update_average(average, network, config.ema_decay)

  return step


def of_expression(
  config: expression.Config,
  encoder: wav2vec2.Config,
  decoder: faceformer.Config,
  num_batch: int,
  num_frames: int,
) -> Callable[[], None]:
  """Returns stage 1's step of decoder and encoder, fed back."""
  network = speech.encoder(encoder).train()
  model = speech.Decoder(decoder).train()
  optimizer = _optimizer(config.optim, network, model)
  wide = num_frames + 2 * config.margin
  waveform = 0.1 * torch.randn(num_batch, wide * expression.HOP)
  identity = torch.randn(num_batch, decoder.identity_size)
  target = torch.randn(num_batch, num_frames, decoder.expression_size)

  def step():
    features = speech.encode(network, waveform, wide)
    features = features[:, config.margin :][:, :num_frames]
    out = model(features, identity)
    loss = config.weights.expression * (out - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  return step
