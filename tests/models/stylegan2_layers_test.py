"""Equalised layers: gains and the noise's two modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import stylegan2_layers


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_a_linear_layer_keeps_the_variance_whatever_its_multiplier(
  lr_multiplier,
):
  layer = stylegan2_layers.Linear(
    256, 512, bias=2.0, lr_multiplier=lr_multiplier, rngs=nnx.Rngs(0)
  )
  y = layer(jax.random.normal(jax.random.key(0), (64, 256)))
  np.testing.assert_allclose(jnp.mean(y), 2, atol=0.05)
  # 32768 dependent draws: a few per cent.
  np.testing.assert_allclose(jnp.std(y), 1, rtol=0.05)


def test_the_multiplier_scales_the_step_of_the_output():
  def moved(lr_multiplier):
    layer = stylegan2_layers.Linear(
      8, 3, lr_multiplier=lr_multiplier, rngs=nnx.Rngs(0)
    )
    before = layer(jnp.ones((1, 8)))
    layer.kernel[...] += 0.1
    layer.bias[...] += 0.1
    return layer(jnp.ones((1, 8))) - before

  # The difference of outputs near 1 rounds at 1e-7; 0.01 of the move is 4e-3.
  np.testing.assert_allclose(moved(0.01), 0.01 * moved(1.0), rtol=1e-3)


def test_a_convolution_keeps_the_variance():
  layer = stylegan2_layers.Conv(64, 64, 3, rngs=nnx.Rngs(0))
  y = layer(jax.random.normal(jax.random.key(0), (2, 16, 16, 64)))
  inside = jnp.mean(jnp.square(y[:, 1:-1, 1:-1]))
  # 2 * (1 + 0.2^2) / 2 = 1.04.
  np.testing.assert_allclose(inside, 1.04, rtol=0.1)


def test_noise_is_fixed_without_a_key_and_fresh_with_one():
  layer = stylegan2_layers.StyledConv(3, 4, 5, 8, rngs=nnx.Rngs(0))
  layer.noise_strength[...] = jnp.array(1.0)
  x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((2, 5))
  fixed = layer(x, w)
  np.testing.assert_array_equal(fixed, layer(x, w))
  # The same input twice: the same noise for both, to rounding.
  np.testing.assert_allclose(fixed[0], fixed[1], atol=1e-5)
  fresh = layer(x, w, key=jax.random.key(0))
  assert np.std(np.asarray(fresh[0] - fresh[1])) > 0.1


def test_the_fixed_noise_is_not_trained():
  layer = stylegan2_layers.StyledConv(3, 4, 5, 8, rngs=nnx.Rngs(0))
  trained = [path for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))]
  assert ("noise_strength",) in trained and ("noise",) not in trained
