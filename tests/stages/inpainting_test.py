"""What the inpainting network is given: nothing from under the mask."""

import jax
import jax.numpy as jnp
import numpy as np

from pir_jax.stages import faces, inpainting

KEY = jax.random.key(0)


def test_nothing_comes_through_the_mask_not_even_nan():
  image = jax.random.uniform(KEY, (2, 8, 8, 3), minval=-1.0)
  mask = jnp.zeros((2, 8, 8, 1)).at[:, 2:6, 2:6].set(1.0)
  # Half covered pixels count as covered.
  mask = mask.at[:, 1, 1].set(0.01)
  hidden = jnp.where(mask > 0, jnp.nan, image)
  np.testing.assert_array_equal(
    faces.masked(image, mask), faces.masked(hidden, mask)
  )
  assert float(jnp.abs(faces.masked(image, mask)[:, 3, 3]).max()) == 0.0
  np.testing.assert_array_equal(faces.masked(image, mask)[:, 7], image[:, 7])


def test_no_disturbance_when_every_deviation_is_zero():
  features = jax.random.normal(KEY, (2, 8, 8, 4))
  still = inpainting.Augmentation(
    shift=0.0, angle=0.0, scale=0.0, gain=0.0, noise=0.0
  )
  np.testing.assert_allclose(
    inpainting.disturb(features, still, KEY), features, atol=1e-6
  )


def test_each_example_is_disturbed_in_its_own_way_and_only_a_little():
  features = jnp.broadcast_to(
    jax.random.normal(KEY, (1, 16, 16, 4)), (3, 16, 16, 4)
  )
  out = inpainting.disturb(features, inpainting.Augmentation(), KEY)
  assert float(jnp.abs(out[0] - out[1]).max()) > 0.01
  correlation = np.corrcoef(np.ravel(out), np.ravel(features))[0, 1]
  assert correlation > 0.5
