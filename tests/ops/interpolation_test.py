"""Linear resampling keeps the ends and is what numpy.interp says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.ops import interpolation


@pytest.mark.parametrize("given", [1, 2, 19, 199])
@pytest.mark.parametrize("wanted", [1, 2, 10, 100, 250])
def test_equals_numpy_interp(given, wanted):
  x = np.random.default_rng(0).normal(size=(2, given, 3))
  places = np.linspace(0, given - 1, wanted) if wanted > 1 else [0]
  want = [
    [np.interp(places, np.arange(given), row[:, c]) for c in range(3)]
    for row in x
  ]
  got = interpolation.resample_linear(jnp.asarray(x, jnp.float32), wanted)
  # A place of up to 200 in float32 is off by 1e-5, times a slope of a few.
  np.testing.assert_allclose(got, np.swapaxes(want, 1, 2), rtol=1e-5, atol=1e-4)


def test_same_length_changes_nothing():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 50, 2)), jnp.float32)
  np.testing.assert_array_equal(interpolation.resample_linear(x, 50), x)


def test_padding_changes_nothing():
  x = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
  whole = interpolation.resample_linear(jnp.asarray(x[1:, :12]), 6)
  padded = interpolation.resample_linear(
    jnp.asarray(x),
    10,
    lengths=jnp.array([20, 12]),
    new_lengths=jnp.array([10, 6]),
  )
  np.testing.assert_array_equal(padded[1, :6], whole[0])
  np.testing.assert_array_equal(padded[1, 6:], np.tile(x[1, 11], (4, 1)))


def test_gradient_is_the_weight_of_each_frame():
  gradient = jax.grad(
    lambda x: jnp.sum(interpolation.resample_linear(x, 3)[:, 1])
  )(jnp.zeros((1, 4, 1)))
  np.testing.assert_allclose(gradient[0, :, 0], [0, 0.5, 0.5, 0])


def test_nothing_to_resample_is_refused():
  with pytest.raises(ValueError, match="cannot resample 0 frames to 3"):
    interpolation.resample_linear(jnp.zeros((1, 0, 2)), 3)


def test_crossfade_of_equal_halves_changes_nothing():
  x = jax.random.normal(jax.random.key(0), (2, 9, 3))
  out = interpolation.crossfade(x[:, :4], x)
  # Two shares that sum to one, in float32.
  np.testing.assert_allclose(out, x, atol=1e-6)
  np.testing.assert_array_equal(interpolation.crossfade(x[:, :0], x), x)


def test_crossfade_goes_from_left_to_right():
  left, right = jnp.zeros((1, 4, 1)), jnp.ones((1, 6, 1))
  out = interpolation.crossfade(left, right)[0, :, 0]
  np.testing.assert_allclose(out, [0.125, 0.375, 0.625, 0.875, 1, 1])


def test_neighbours_are_the_frames_around():
  x = jnp.arange(5.0).reshape(1, 5, 1)
  out = interpolation.stack_neighbours(x, 1)[0]
  np.testing.assert_array_equal(
    out, [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
  )
  np.testing.assert_array_equal(interpolation.stack_neighbours(x, 0), x)
