"""pix2pixHD weights: numbers of the published networks, mismatches, sizes.

The generator is held against a float64 numpy version of the published network
written out below; the published outputs themselves are 1.4 MB and are compared
where PIR_JAX_REFERENCE names the folder that holds them.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import pooling
from pir_jax.pretrained import pix2pixhd

_GOLDENS = Path(__file__).parents[1] / "goldens"
# float32 against float32 or float64 through some thirty layers; images in
# [-1, 1], features of deviation about 0.6.
_ATOL = 3e-5


def _correlate(x, weight, bias, stride=1):
  """(c, h, w) by (o, c, k, k), no padding."""
  windows = np.lib.stride_tricks.sliding_window_view(
    x, weight.shape[2:], axis=(1, 2)
  )[:, ::stride, ::stride]
  return np.einsum("chwkl,ockl->ohw", windows, weight) + bias[:, None, None]


def _norm(x):
  mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
  return (x - mean) / np.sqrt(variance + 1e-5)


def _pad(x, size, mode):
  return np.pad(x, ((0, 0), (size, size), (size, size)), mode)


def _relu_norm(x):
  return np.maximum(_norm(x), 0)


class _Published:
  """The published network's layers, by their published names."""

  def __init__(self, state_dict):
    self.state = {k: v.astype(np.float64) for k, v in state_dict.items()}

  def conv(self, x, name, pad, mode="reflect", stride=1):
    weight, bias = (self.state[f"{name}.{s}"] for s in ("weight", "bias"))
    return _correlate(_pad(x, pad, mode), weight, bias, stride)

  def up(self, x, name):
    weight, bias = (self.state[f"{name}.{s}"] for s in ("weight", "bias"))
    _, h, w = x.shape
    y = np.zeros((weight.shape[1], 2 * h + 2, 2 * w + 2))
    for k, m in np.ndindex(3, 3):
      part = np.einsum("ihw,io->ohw", x, weight[:, :, k, m])
      y[:, k : k + 2 * h : 2, m : m + 2 * w : 2] += part
    return y[:, 1 : 2 * h + 1, 1 : 2 * w + 1] + bias[:, None, None]

  def block(self, x, name):
    y = _relu_norm(self.conv(x, f"{name}.conv_block.1", 1))
    return x + _norm(self.conv(y, f"{name}.conv_block.5", 1))

  def local_enhancer(self, image, features, num, num_global, num_local):
    half = np.moveaxis(
      np.asarray(pooling.halve(jnp.asarray(np.moveaxis(image, 0, -1))[None])),
      -1,
      1,
    )[0]
    x = _relu_norm(self.conv(half, "model.1", 3))
    for i in range(num):
      x = self.conv(x, f"model.{4 + 3 * i}", 1, "constant", 2)
      x = _relu_norm(x)
    x = np.concatenate([x, features])
    for i in range(num_global):
      x = self.block(x, f"model.{4 + 3 * num + i}")
    for i in range(num):
      x = _relu_norm(self.up(x, f"model.{4 + 3 * num + num_global + 3 * i}"))
    y = _relu_norm(self.conv(image, "model1_1.1", 3))
    x = x + _relu_norm(self.conv(y, "model1_1.4", 1, "constant", 2))
    for i in range(num_local):
      x = self.block(x, f"model1_2.{i}")
    x = _relu_norm(self.up(x, f"model1_2.{num_local}"))
    return np.tanh(self.conv(x, f"model1_2.{num_local + 4}", 3))


def _state_dict(num=2, num_global=2, num_local=1, fine=2, features=0):
  """Random weights under the published names and layouts."""
  rng = np.random.default_rng(0)
  coarse = 2 * fine
  wide = coarse * 2**num + features
  shapes = {"model.1": (coarse, 3, 7, 7)}
  for i in range(num):
    channels = coarse * 2**i
    shapes[f"model.{4 + 3 * i}"] = (2 * channels, channels, 3, 3)
  for i in range(num_global):
    for k in (1, 5):
      name = f"model.{4 + 3 * num + i}.conv_block.{k}"
      shapes[name] = (wide, wide, 3, 3)
  for i in range(num):
    name = f"model.{4 + 3 * num + num_global + 3 * i}"
    width = coarse * 2 ** (num - i)
    shapes[name] = (width if i else wide, width // 2, 3, 3)
  shapes["model1_1.1"] = (fine, 3, 7, 7)
  shapes["model1_1.4"] = (coarse, fine, 3, 3)
  for i in range(num_local):
    for k in (1, 5):
      shapes[f"model1_2.{i}.conv_block.{k}"] = (coarse, coarse, 3, 3)
  shapes[f"model1_2.{num_local}"] = (coarse, fine, 3, 3)
  shapes[f"model1_2.{num_local + 4}"] = (3, fine, 7, 7)
  transposed = {f"model1_2.{num_local}"} | {
    f"model.{4 + 3 * num + num_global + 3 * i}" for i in range(num)
  }
  state = {}
  for name, shape in shapes.items():
    out = shape[1] if name in transposed else shape[0]
    state[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
    state[f"{name}.bias"] = rng.normal(size=out).astype(np.float32)
  # Keeps tanh off its flat ends, where every network would agree.
  state[f"model1_2.{num_local + 4}.weight"] *= 0.1
  return state


@pytest.mark.parametrize("num, features", [(1, 3), (2, 0)])
def test_generator_agrees_with_the_published_network(num, features):
  state = _state_dict(num=num, features=features)
  rng = np.random.default_rng(1)
  image = rng.uniform(-1, 1, (3, 16, 24)).astype(np.float32)
  factor = 2 ** (num + 1)
  extra = rng.normal(size=(features, 16 // factor, 24 // factor))
  expected = _Published(state).local_enhancer(image, extra, num, 2, 1)
  model = pix2pixhd.from_torch(state)
  assert model.config.feature_channels == features
  given = jnp.asarray(np.moveaxis(extra, 0, -1), jnp.float32)[None]
  result = jax.jit(lambda x: model(x, given if features else None).image)(
    jnp.asarray(np.moveaxis(image, 0, -1))[None]
  )
  assert expected.std() > 0.1
  np.testing.assert_allclose(
    result[0], np.moveaxis(expected, 0, -1), atol=_ATOL
  )


def test_generator_agrees_with_the_published_outputs():
  folder = os.environ.get("PIR_JAX_REFERENCE")
  if not folder:
    pytest.skip("set PIR_JAX_REFERENCE to the folder of published outputs")
  data = np.load(Path(folder) / "pix2pixhd_local_enhancer.npz")
  model = pix2pixhd.from_torch(_parameters(data))
  output = jax.jit(lambda x: model(x))(_nhwc(data["in/image"]))
  np.testing.assert_allclose(output.image, _nhwc(data["out/image"]), atol=_ATOL)
  # The file keeps every fourth pixel of the coarse branch.
  np.testing.assert_allclose(
    output.coarse[:, ::4, ::4], _nhwc(data["out/coarse_features"]), atol=_ATOL
  )


def test_coarsest_judge_agrees_with_the_published_outputs():
  # Of the published three scales the golden keeps the weights of the coarsest.
  data = np.load(_GOLDENS / "pix2pixhd_discriminator.npz")
  model = pix2pixhd.discriminator_from_torch(_parameters(data))
  image = pooling.halve(pooling.halve(_nhwc(data["in/image"])))
  output = jax.jit(lambda x: model(x))(image)
  layers = (*output.features[0], output.logits[0])
  for i, layer in enumerate(layers):
    expected = _nhwc(data[f"out/scale2/layer{i}"])
    np.testing.assert_allclose(layer, expected, atol=_ATOL)


def test_published_scale_zero_is_the_coarsest():
  data = np.load(_GOLDENS / "pix2pixhd_discriminator.npz")
  coarse = _parameters(data)
  fine = {k.replace("scale0", "scale1"): 0 * v for k, v in coarse.items()}
  model = pix2pixhd.discriminator_from_torch(coarse | fine)
  assert len(model.scales) == 2
  kernels = [scale.layers[0].kernel[...] for scale in model.scales]
  assert not np.any(kernels[0]) and np.any(kernels[1])


@pytest.mark.parametrize("features", [0, 5])
def test_sizes_are_read_off_the_arrays(features):
  state = _state_dict(num=1, num_global=3, num_local=2, fine=2)
  config = pix2pixhd.generator_config(state)
  assert (config.num_downsamples, config.num_global_blocks) == (1, 3)
  assert (config.num_local_blocks, config.channels) == (2, 2)
  state = _state_dict(features=features)
  assert pix2pixhd.generator_config(state).feature_channels == features


def test_every_mismatch_is_named():
  state = _state_dict()
  del state["model.4.bias"]
  state["model1_1.4.weight"] = state["model1_1.4.weight"][:, :1]
  state["surplus.weight"] = np.zeros(1, np.float32)
  with pytest.raises(ValueError) as error:
    pix2pixhd.from_torch(state)
  for name in ("coarse_down.0.bias", "model1_1.4.weight", "surplus.weight"):
    assert name in str(error.value)


def test_other_networks_are_refused_in_a_sentence():
  with pytest.raises(ValueError, match="not the weights of a pix2pixHD Local"):
    pix2pixhd.from_torch({"model.1.weight": np.zeros((4, 3, 7, 7))})
  with pytest.raises(ValueError, match="not the weights of a pix2pixHD Multi"):
    pix2pixhd.discriminator_from_torch({"layer0.0.weight": np.zeros(1)})


def _parameters(data):
  return {k[6:]: data[k] for k in data if k.startswith("param/")}


def _nhwc(array):
  return jnp.asarray(np.moveaxis(array, 1, -1))
