"""What is disturbed in training, and how little."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.stages import augmentation
from pir_jax.types import Cameras

KEY = jax.random.key(0)
STILL = augmentation.Config(
  **{field.name: 0.0 for field in dataclasses.fields(augmentation.Config)}
)


def _cameras(num):
  pose = jnp.diag(jnp.array([1.0, -1.0, -1.0, 1.0])).at[2, 3].set(2.7)
  return Cameras(jnp.stack([pose] * num), jnp.stack([jnp.eye(3)] * num))


def test_nothing_is_disturbed_when_every_switch_is_off():
  features = jax.random.normal(KEY, (2, 8, 8, 4))
  np.testing.assert_array_equal(
    augmentation.disturb(features, STILL, KEY), features
  )
  cameras = _cameras(2)
  assert augmentation.moved(cameras, STILL, KEY) is cameras
  expression = jnp.ones((2, 3))
  shown = augmentation.shown(
    expression, expression + 1, jnp.ones(3), STILL, KEY
  )
  np.testing.assert_array_equal(shown, expression)


def test_each_example_is_disturbed_in_its_own_way_and_only_a_little():
  features = jnp.broadcast_to(
    jax.random.normal(KEY, (1, 16, 16, 4)), (3, 16, 16, 4)
  )
  out = augmentation.disturb(features, augmentation.Config(), KEY)
  assert float(jnp.abs(out[0] - out[1]).max()) > 0.01
  correlation = np.corrcoef(np.ravel(out), np.ravel(features))[0, 1]
  assert correlation > 0.5


@pytest.mark.parametrize("part", ["turn", "move"])
def test_cameras_stay_rigid_and_near(part):
  config = dataclasses.replace(STILL, **{part: 0.01})
  cameras = _cameras(200)
  pose = augmentation.moved(cameras, config, KEY).pose
  rotation = pose[:, :3, :3]
  product = jnp.einsum("bij,bkj->bik", rotation, rotation)
  np.testing.assert_allclose(product, np.stack([np.eye(3)] * 200), atol=1e-5)
  change = pose[:, :3, 3] - cameras.pose[:, :3, 3]
  # A turn about the head moves the camera by its distance times the angle; the
  # axis it looks along moves nothing.
  spread = float(change.std(0).max())
  assert spread == pytest.approx(0.027 if part == "turn" else 0.01, rel=0.2)


def test_the_wanted_share_of_examples_shows_what_was_heard():
  fitted, heard = jnp.zeros((400, 2)), jnp.ones((400, 2))
  config = dataclasses.replace(STILL, heard=0.25)
  shown = augmentation.shown(fitted, heard, jnp.ones(2), config, KEY)
  assert set(np.unique(shown)) == {0.0, 1.0}
  # Whole expressions, not coefficients, are exchanged.
  np.testing.assert_array_equal(shown[:, 0], shown[:, 1])
  assert float(shown.mean()) == pytest.approx(0.25, abs=0.08)


def test_noise_is_counted_in_the_coefficients_own_scale():
  config = dataclasses.replace(STILL, expression=0.5)
  scale = jnp.array([1.0, 0.1])
  shown = augmentation.shown(jnp.zeros((500, 2)), None, scale, config, KEY)
  np.testing.assert_allclose(shown.std(0), [0.5, 0.05], rtol=0.15)
