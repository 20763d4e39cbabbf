"""The perceptual metric's batches, masks and boxes (weights do not matter)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.metrics import lpips
from pir_jax.models import vgg


@pytest.fixture(scope="module")
def network():
  graph, state = nnx.split(
    nnx.eval_shape(lambda: vgg.Lpips("alex", rngs=nnx.Rngs(0)))
  )
  rng = np.random.default_rng(1)

  def draw(x):
    value = np.abs(rng.normal(size=x.shape)) - (x.ndim > 1)
    return jnp.asarray(value / np.sqrt(x.size), x.dtype)

  # Filled from numpy: drawing in JAX compiles once a shape.
  return nnx.merge(graph, jax.tree.map(draw, state))


@pytest.fixture(scope="module")
def distance(network):
  return lpips.Distance(network, batch=2)


def _clip(num=3, size=72):
  rng = np.random.default_rng(0)
  return rng.uniform(size=(2, num, size, size, 3))


def test_batches_give_what_the_network_gives(network, distance):
  frames, truth = _clip()
  expected = network(
    jnp.asarray(2 * frames - 1, jnp.float32),
    jnp.asarray(2 * truth - 1, jnp.float32),
  )
  # Only the order of float32 sums differs.
  np.testing.assert_allclose(distance(frames, truth), expected, rtol=1e-5)


def test_batches_of_any_length_are_traced_once(monkeypatch, network):
  once = chex.assert_max_traces(vgg.Lpips.__call__, n=1)
  monkeypatch.setattr(vgg.Lpips, "__call__", once)
  measure = lpips.Distance(network, batch=4)
  frames, truth = _clip(7, size=64)
  whole = measure(frames, truth)
  np.testing.assert_array_equal(measure(frames[:3], truth[:3]), whole[:3])


def test_only_what_the_mask_covers_counts(distance):
  frames, truth = _clip()
  mask = np.zeros((3, 72, 72, 1))
  mask[:2, 10:60, 4:40] = 1
  value = distance(frames, truth, mask)
  # Equal frames: the square of rounding at most.
  assert (value[:2] > 1e-6).all() and value[2] < 1e-12
  other = np.where(mask > 0.5, frames, 1 - frames)
  np.testing.assert_array_equal(distance(other, truth, mask), value)


def test_box_holds_every_mask_and_no_side_is_too_short():
  inside = np.zeros((2, 100, 90), bool)
  inside[0, 3:5, 80] = inside[1, 20:90, 85] = True
  rows, columns = lpips.bounding_box(inside, 64)
  assert (rows, columns) == (slice(3, 90), slice(26, 90))
  rows, columns = lpips.bounding_box(inside[:, :40], 64)
  assert (rows, columns) == (slice(0, 40), slice(26, 90))


def test_empty_masks_and_shortened_networks_are_refused(distance):
  frames, truth = _clip(1)
  with pytest.raises(ValueError, match="mask is empty"):
    distance(frames, truth, np.zeros((1, 72, 72, 1)))
  with pytest.raises(ValueError, match="num_layers=5"):
    lpips.Distance(
      nnx.eval_shape(lambda: vgg.Lpips("alex", num_layers=1, rngs=nnx.Rngs(0)))
    )
