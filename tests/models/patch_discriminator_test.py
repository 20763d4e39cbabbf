"""Laws of the patch discriminator; its numbers: convert/pix2pixhd_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import patch_discriminator


def _model(**overrides):
  sizes = dict(channels=4, num_layers=2) | overrides
  config = patch_discriminator.Config(**sizes)
  return patch_discriminator.MultiscaleDiscriminator(config, rngs=nnx.Rngs(0))


def _filled(**overrides):
  """Filled from numpy: drawing in JAX compiles once a shape."""
  graph, state = nnx.split(nnx.eval_shape(lambda: _model(**overrides)))
  rng = np.random.default_rng(1)
  return nnx.merge(
    graph,
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype), state
    ),
  )


def _image(*shape):
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_maps_of_a_512_frame_have_the_published_sizes():
  output = jax.eval_shape(
    lambda x: _model(channels=64, num_layers=3)(x),
    jax.ShapeDtypeStruct((1, 512, 512, 6), jnp.float32),
  )
  sizes = [[f.shape[1] for f in scale] for scale in output.features]
  assert sizes == [[257, 129, 65, 66], [129, 65, 33, 34]]
  assert [f.shape[-1] for f in output.features[0]] == [64, 128, 256, 512]
  assert [x.shape[1:] for x in output.logits] == [(67, 67, 1), (35, 35, 1)]


def test_one_scale_has_2_77_million_parameters():
  model = nnx.eval_shape(
    lambda: _model(channels=64, num_layers=3, num_scales=1)
  )
  count = sum(x.size for x in jax.tree.leaves(nnx.state(model)))
  assert round(count / 1e6, 2) == 2.77


def test_batch_of_two_equals_two_batches_of_one():
  model = _filled()
  image = _image(2, 24, 20, 6)
  graph, state = nnx.split(model)
  run = jax.jit(lambda x: nnx.merge(graph, state)(x))
  both = run(image)
  for i in range(2):
    one = run(image[i : i + 1])
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
      # Only the order of float32 sums differs.
      np.testing.assert_allclose(a[i : i + 1], b, atol=1e-5)


def test_a_patch_does_not_see_the_far_corner_before_the_first_norm():
  model = _filled(num_scales=1)
  image = _image(1, 32, 32, 6)
  moved = image.at[:, -8:, -8:].add(1.0)
  a, b = (model(x).features[0][0] for x in (image, moved))
  np.testing.assert_array_equal(a[:, :8, :8], b[:, :8, :8])
  assert np.abs(a - b).max() > 0


def test_other_channels_are_refused():
  with pytest.raises(ValueError, match="input_channels=3"):
    _filled()(jnp.zeros((1, 16, 16, 3)))
