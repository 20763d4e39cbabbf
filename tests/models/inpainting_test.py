"""Laws of the inpainting network; its numbers are in convert/pix2pixhd_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import inpainting

_SMALL = dict(
  feature_channels=3,
  channels=4,
  num_downsamples=1,
  num_global_blocks=1,
  num_local_blocks=1,
)


def _inputs(batch=2, size=16, features=3):
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (batch, size, size, 3))
  feature_image = rng.normal(size=(batch, size // 4, size // 4, features))
  return (
    jnp.asarray(image, jnp.float32),
    jnp.asarray(feature_image, jnp.float32),
  )


def _model(**overrides):
  """Filled from numpy: drawing in JAX compiles once a shape."""
  config = inpainting.Config(**(_SMALL | overrides))
  graph, state = nnx.split(
    nnx.eval_shape(
      lambda: inpainting.InpaintingGenerator(config, rngs=nnx.Rngs(0))
    )
  )
  rng = np.random.default_rng(1)
  return nnx.merge(
    graph,
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype), state
    ),
  )


def _run(model, *inputs):
  """The forward pass, compiled: op by op it takes ten times as long."""
  graph, state = nnx.split(model)
  return jax.jit(lambda s, *x: nnx.merge(graph, s)(*x))(state, *inputs)


def _count(module):
  return sum(x.size for x in jax.tree.leaves(nnx.state(module)))


def test_transposed_conv_scatters_each_tap_to_its_place():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 5, 2))
  layer = inpainting.TransposedConv(2, 3, rngs=nnx.Rngs(0))
  kernel = np.asarray(layer.kernel[...], np.float64)
  expected = np.zeros((2, 6, 10, 3)) + np.asarray(layer.bias[...])
  for i, j, k, m in np.ndindex(3, 5, 3, 3):
    row, column = 2 * i - 1 + k, 2 * j - 1 + m
    if row >= 0 and column >= 0:
      expected[:, row, column] += x[:, i, j] @ kernel[k, m]
  # float32 sums of some ten products near 0.02.
  np.testing.assert_allclose(
    layer(jnp.asarray(x, jnp.float32)), expected, atol=1e-6
  )


def test_the_papers_size_has_seven_million_parameters():
  model = nnx.eval_shape(
    lambda: inpainting.InpaintingGenerator(
      inpainting.Config(), rngs=nnx.Rngs(0)
    )
  )
  # 288-wide residual blocks all through: 7.03 M (6.40 M with a fusing layer).
  assert round(_count(model) / 1e6, 2) == 7.03


def test_the_papers_size_paints_512_from_features_of_64():
  def paint(image, features):
    model = inpainting.InpaintingGenerator(
      inpainting.Config(), rngs=nnx.Rngs(0)
    )
    return model(image, features)

  output = jax.eval_shape(
    paint,
    jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32),
    jax.ShapeDtypeStruct((1, 64, 64, 32), jnp.float32),
  )
  assert output.image.shape == (1, 512, 512, 3)
  assert output.bottleneck.shape == (1, 64, 64, 288)
  assert output.coarse.shape == (1, 256, 256, 64)


def test_batch_of_two_equals_two_batches_of_one():
  model = _model()
  image, features = _inputs()
  both = _run(model, image, features).image
  for i in range(2):
    one = _run(model, image[i : i + 1], features[i : i + 1]).image
    # Only the order of float32 sums differs.
    np.testing.assert_allclose(both[i : i + 1], one, atol=1e-5)


def test_output_is_a_picture_and_depends_on_frame_and_features():
  model = _model()
  image, features = _inputs()
  output = _run(model, image, features).image
  assert np.abs(output).max() <= 1
  for inputs in ((-image, features), (image, -features)):
    assert np.abs(_run(model, *inputs).image - output).max() > 1e-3


def test_frames_need_not_be_square():
  image = jnp.zeros((1, 8, 16, 3))
  output = jax.eval_shape(_model(), image, jnp.zeros((1, 2, 4, 3)))
  assert output.image.shape == image.shape


def test_gradients_are_finite_and_reach_every_kernel():
  model = _model()
  image, features = _inputs()
  graph, state = nnx.split(model)

  def loss(state):
    painted = nnx.merge(graph, state)(image, features).image
    return jnp.mean(jnp.square(painted))

  gradients = jax.jit(jax.grad(loss))(state)
  for path, gradient in nnx.to_flat_state(gradients):
    assert np.isfinite(gradient[...]).all()
    if path[-1] == "kernel":
      assert np.abs(gradient[...]).max() > 0, path


def test_half_precision_activations_stay_near_and_give_float32():
  image, features = _inputs()
  full = _run(_model(), image, features).image
  half = _run(_model(dtype="bfloat16"), image, features).image
  assert half.dtype == jnp.float32
  # bfloat16 keeps 8 bits; seven layers of renormalised activations.
  assert np.sqrt(np.mean((half - full) ** 2)) < 0.05 * full.std()


@pytest.mark.parametrize(
  "size, features, match",
  [
    (18, (4, 4, 3), "multiples of 4"),
    (16, (8, 8, 3), "num_downsamples"),
    (16, (4, 4, 5), "feature_channels"),
    (16, None, "feature_channels"),
  ],
)
def test_sizes_that_do_not_fit_are_named(size, features, match):
  image = jnp.zeros((1, size, size, 3))
  if features is not None:
    features = jnp.zeros((1, *features))
  with pytest.raises(ValueError, match=match):
    _model()(image, features)


def test_a_frame_of_other_channels_and_no_downsampling_are_refused():
  with pytest.raises(ValueError, match="input_channels=4"):
    _model()(jnp.zeros((1, 16, 16, 4)), jnp.zeros((1, 4, 4, 3)))
  with pytest.raises(ValueError, match="at least 1"):
    _model(num_downsamples=0)
