"""The networks that we time ours against compute what ours do.

PyTorch's are made at small sizes, and ours from their state dicts.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import (
  faceformer,
  inpainting,
  patch_discriminator,
  renderer,
  triplane_generator,
  vgg,
)
from pir_jax.pretrained import eg3d as eg3d_weights
from pir_jax.pretrained import faceformer as faceformer_weights
from pir_jax.pretrained import pix2pixhd as pix2pixhd_weights
from pir_jax.profiling import parts

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def seed():
  """Fixes PyTorch's weights and inputs."""
  torch.manual_seed(0)


def arrays(network):
  """Returns a state dict, noise on top so that no bias is 0."""
  with torch.no_grad():
    for parameter in network.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return {name: x.numpy() for name, x in network.state_dict().items()}


def last(x):
  """Puts PyTorch's channels last."""
  return jnp.asarray(np.moveaxis(x.detach().numpy(), 1, -1))


def close(ours, theirs, tolerance=1e-4):
  """Compares within a share of the values' spread."""
  theirs = np.asarray(theirs)
  assert ours.shape == theirs.shape
  assert np.abs(ours - theirs).max() < tolerance * theirs.std()


def small_planes():
  """Returns a small tri-plane's Config; the image's side is EG3D's."""
  return triplane_generator.Config(
    identity_size=5,
    expression_size=6,
    w_size=8,
    channel_base=128,
    channel_max=16,
    plane_resolution=16,
    plane_channels=4,
    feature_resolution=8,
    sr_channels=(4, 3),
    renderer=renderer.Config(num_coarse=6, num_fine=5, hidden_size=8),
  )


@pytest.mark.parametrize("training", [False, True])
def test_tri_plane(training):
  from experiments.peers import eg3d

  config = small_planes()
  peer = eg3d.Generator(config)
  state = arrays(peer)
  peer.train(training)
  if training:  # The other way to modulate, without what is random.
    peer.training = False
    for name, strength in peer.named_parameters():
      if name.endswith("noise_strength"):
        strength.data.zero_()
  model = eg3d_weights.from_torch(state, config=config)
  for layer, linear in zip(
    model.mapping.layers, peer.backbone.mapping, strict=True
  ):
    layer.kernel[...] = linear.weight.detach().numpy().T
    layer.bias[...] = linear.bias.detach().numpy()
  view = parts.conditions(config, 2)
  random = np.random.default_rng(1)
  inputs = [
    random.standard_normal(view[name].shape, np.float32)
    for name in ("identity", "expression")
  ]
  camera = np.asarray(view["camera"])
  theirs = peer(*map(torch.from_numpy, (*inputs, camera.copy())))
  ours = model(*map(jnp.asarray, (*inputs, camera)))
  close(ours.feature_image, last(theirs[0]))
  close(ours.weight_sum[..., None], last(theirs[2]), 1e-3)
  close(ours.image, last(theirs[3]))


def test_inpainting_and_its_discriminator():
  from experiments.peers import pix2pixhd

  config = inpainting.Config(feature_channels=4, channels=4)
  peer = pix2pixhd.Generator(config)
  model = pix2pixhd_weights.from_torch(arrays(peer))
  assert model.config == config
  image, feature = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 4, 4)
  close(
    model(last(image), last(feature)).image, last(peer(image, feature)), 1e-3
  )
  config = patch_discriminator.Config(channels=4, max_channels=16)
  peer = pix2pixhd.Discriminator(config)
  model = pix2pixhd_weights.discriminator_from_torch(arrays(peer))
  image = torch.randn(2, 6, 32, 32)
  output = model(last(image))
  scales = peer(image)
  for logits, features, scale in zip(
    output.logits, output.features, scales, strict=True
  ):
    for ours, theirs in zip((*features, logits), scale, strict=True):
      close(ours, last(theirs), 1e-3)


def test_perceptual_distance():
  from experiments.peers import vgg as peer_vgg

  model = vgg.Lpips("vgg", num_layers=3, rngs=nnx.Rngs(0))
  peer = peer_vgg.Lpips(3)
  convs = [conv for part in peer.parts for conv in part]
  for conv, layer in zip(convs, model.layers, strict=True):
    kernel = np.transpose(np.asarray(layer.kernel[...]), (3, 2, 0, 1))
    conv.weight.copy_(torch.from_numpy(kernel.copy()))
    conv.bias.zero_()
  pair = [torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2)]
  distance = peer(*pair).numpy()
  assert np.allclose(model(*map(last, pair)), distance, rtol=1e-4)


@pytest.mark.parametrize("context", [None, 7])
def test_expression_decoder(context):
  from experiments.peers import speech

  config = faceformer.Config(
    identity_size=3,
    expression_size=5,
    audio_size=6,
    width=16,
    ffn=24,
    period=4,
    context=context,
  )
  peer = speech.Decoder(config).eval()
  model = faceformer_weights.from_torch(arrays(peer), config)
  audio, identity = torch.randn(2, 11, 6), torch.randn(2, 3)
  ours = model.generate(*map(jnp.asarray, (audio.numpy(), identity.numpy())))
  close(ours, peer(audio, identity).detach(), 1e-3)
