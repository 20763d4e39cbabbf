"""Mapping against StyleGAN2's numbers; synthesis by its shapes and laws."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import stylegan2, stylegan2_layers
from pir_jax.ops import activations
from pir_jax.pretrained import weight_map

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


def test_mapping_agrees_with_stylegan2():
  golden = np.load(GOLDENS / "stylegan2_mapping.npz")
  weights = {
    name[len("param/") :]: golden[name]
    for name in golden.files
    if name.startswith("param/fc")
  }
  mapping = stylegan2.Mapping(28, 16, 2, rngs=nnx.Rngs(0))
  table = [
    weight_map.Rule(r"fc(\d)\.weight", r"layers.\1.kernel", weight_map.linear),
    weight_map.Rule(r"fc(\d)\.bias", r"layers.\1.bias"),
  ]
  weight_map.apply(table, weights, mapping)
  embed = stylegan2_layers.Linear(5, 16, rngs=nnx.Rngs(0))
  embed.kernel[...] = jnp.asarray(golden["param/embed.weight"].T)
  embed.bias[...] = jnp.asarray(golden["param/embed.bias"])
  # Theirs normalises both parts of the input; ours leaves that to the caller.
  x = jnp.concatenate(
    [
      activations.normalize_second_moment(jnp.asarray(golden["in/z"])),
      activations.normalize_second_moment(embed(jnp.asarray(golden["in/c"]))),
    ],
    -1,
  )
  want = golden["out/w"]
  # Two layers of float32 sums.
  np.testing.assert_allclose(mapping(x), want[:, 0], atol=1e-5)
  np.testing.assert_array_equal(want[:, 0], want[:, -1])


def test_mapping_tells_apart_inputs_that_differ_in_length_only():
  mapping = stylegan2.Mapping(6, 16, 2, rngs=nnx.Rngs(0))
  x = jnp.ones((1, 6))
  assert np.abs(np.asarray(mapping(x) - mapping(2 * x))).max() > 0.1


def test_synthesis_uses_every_style():
  network = stylegan2.Synthesis(
    8, 8, 5, channel_base=32, channel_max=4, rngs=nnx.Rngs(0)
  )
  ws = jax.random.normal(jax.random.key(0), (1, network.num_styles, 8))

  @jax.jit
  @jax.grad
  def gradient(ws):
    image = network(ws)
    assert image.shape == (1, 8, 8, 5) and network.num_styles == 4
    return jnp.sum(jnp.square(image))

  assert np.all(np.abs(gradient(ws)).max(-1) > 0)


def test_full_size_has_the_papers_number_of_parameters():
  abstract = nnx.eval_shape(
    lambda: stylegan2.Synthesis(512, 256, 96, rngs=nnx.Rngs(0))
  )
  leaves = jax.tree.leaves(nnx.state(abstract, nnx.Param))
  # 28.21 M is what EG3D's backbone has.
  assert round(sum(x.size for x in leaves) / 1e6, 2) == 28.21


def test_sides_are_powers_of_two():
  with pytest.raises(ValueError, match="resolution=48"):
    stylegan2.Synthesis(8, 48, 3, rngs=nnx.Rngs(0))
