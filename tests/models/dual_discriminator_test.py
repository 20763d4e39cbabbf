"""The dual discriminator: conditions, the spread of a minibatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import dual_discriminator


def _network(**options):
  sizes = {
    "resolution": 8,
    "channel_base": 32,
    "channel_max": 4,
    "map_depth": 2,
  }
  config = dual_discriminator.Config(**sizes | options)
  return dual_discriminator.DualDiscriminator(config, rngs=nnx.Rngs(0))


def _images(num_batch=2):
  keys = jax.random.split(jax.random.key(0))
  return (
    jax.random.normal(keys[0], (num_batch, 8, 8, 3)),
    jax.random.normal(keys[1], (num_batch, 4, 4, 3)),
  )


def test_each_input_matters():
  network = _network(group_size=1)
  inputs = (*_images(), jax.random.normal(jax.random.key(1), (2, 25)))
  gradients = jax.jit(jax.grad(lambda x: jnp.sum(network(*x))))(inputs)
  assert all(np.any(g != 0) for g in gradients)


def test_alone_in_its_group_an_example_is_judged_alone():
  network = _network(group_size=1, label_size=0)
  images = _images()
  judge = jax.jit(network)
  both = judge(*images)
  alone = [judge(*(x[i : i + 1] for x in images))[0] for i in range(2)]
  np.testing.assert_allclose(both, jnp.stack(alone), atol=1e-5)


def test_the_spread_of_equal_examples_is_zero():
  x = jnp.ones((4, 2, 2, 3))
  # The root of 1e-8, which keeps its gradient finite.
  np.testing.assert_allclose(
    dual_discriminator.minibatch_std(x, 4), 1e-4, rtol=1e-3
  )
  spread = x.at[::2].set(-1)
  np.testing.assert_allclose(
    dual_discriminator.minibatch_std(spread, 4), 1, rtol=1e-5
  )


def test_groups_are_strided_and_divide_the_batch():
  x = jnp.arange(6.0)[:, None, None, None] ** 2
  got = dual_discriminator.minibatch_std(x, 4)[:, 0, 0, 0]
  # Groups of three: (0, 4, 16) and (1, 9, 25).
  want = [np.std([0, 4, 16]), np.std([1, 9, 25])] * 3
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_missing_or_unwanted_label_is_refused():
  with pytest.raises(ValueError, match="there is no label"):
    _network()(*_images())
  with pytest.raises(ValueError, match="there is a label"):
    _network(label_size=0)(*_images(), jnp.zeros((2, 25)))
