"""Augmentations: their stds, their shares, and that 0 is none."""

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
    augmentation.disturb_features(features, STILL, KEY), features
  )
  cameras = _cameras(2)
  assert augmentation.disturb_cameras(cameras, STILL, KEY) is cameras
  expression = jnp.ones((2, 3))
  changed = augmentation.disturb_expression(
    expression, expression + 1, jnp.ones(3), STILL, KEY
  )
  np.testing.assert_array_equal(changed, expression)


def test_noise_is_of_all_levels_from_none_on():
  noise = augmentation.noise_at_all_levels((2000, 1000), KEY)
  level = np.std(noise, axis=1)
  # A tenth of the rows in each tenth: of 2000, 200 with a std of 13; of the
  # last tenth some 16 are measured above it.
  np.testing.assert_allclose(
    np.histogram(level, 10, (0.0, 1.0))[0], 200, atol=60
  )


def test_gain_and_noise_have_their_stds():
  # Of 4000 examples each: the std of a std is 1 / sqrt(2 * 4000) = 1.1%.
  features = jnp.full((1000, 2, 2, 4), 3.0)
  config = dataclasses.replace(STILL, gain=0.05)
  gain = augmentation.disturb_features(features, config, KEY) / features - 1
  # One gain for a channel of an example, whatever the pixel.
  np.testing.assert_allclose(gain, gain[:, :1, :1] + 0 * gain, atol=1e-6)
  assert float(gain[:, 0, 0].std()) == pytest.approx(0.05, rel=0.05)
  config = dataclasses.replace(STILL, noise=0.02)
  noise = augmentation.disturb_features(features, config, KEY) - features
  assert float(noise.std()) == pytest.approx(0.02, rel=0.05)
  assert abs(float(jnp.mean(noise[:, 0, 0] * noise[:, 1, 1]))) < 1e-4


@pytest.mark.parametrize("part", ["shift", "angle", "scale"])
def test_an_affine_moves_a_ramp_by_its_own_std(part):
  # A ramp shows where each pixel comes from, in pixels from the middle.
  side, num = 16, 1000
  ramp = jnp.arange(side) - (side - 1) / 2
  x, y = jnp.broadcast_to(ramp, (side, side)), ramp[:, None] + 0 * ramp
  features = jnp.broadcast_to(jnp.stack([x, y], -1), (num, side, side, 2))
  std = 0.02
  config = dataclasses.replace(STILL, **{part: std})
  out = augmentation.disturb_features(features, config, KEY)
  row, column = 4, 10  # Far enough from the border.
  change = np.asarray(out - features)[:, row, column]
  px, py = float(ramp[column]), float(ramp[row])
  want = {
    "shift": (std, std),
    "angle": (std * abs(py), std * abs(px)),
    "scale": (std * abs(px), std * abs(py)),
  }[part]
  # 1000 examples: the std of a std is 2.2%.
  np.testing.assert_allclose(change.std(0), want, rtol=0.08)


@pytest.mark.parametrize("part", ["turn", "move"])
def test_cameras_stay_rigid_and_near(part):
  config = dataclasses.replace(STILL, **{part: 0.01})
  cameras = _cameras(200)
  pose = augmentation.disturb_cameras(cameras, config, KEY).pose
  rotation = pose[:, :3, :3]
  product = jnp.einsum("bij,bkj->bik", rotation, rotation)
  np.testing.assert_allclose(product, np.stack([np.eye(3)] * 200), atol=1e-5)
  change = pose[:, :3, 3] - cameras.pose[:, :3, 3]
  # A turn about the head moves the camera by its distance times the angle; the
  # axis it looks along moves nothing.
  spread = float(change.std(0).max())
  assert spread == pytest.approx(0.027 if part == "turn" else 0.01, rel=0.2)


def test_the_configured_share_of_examples_has_the_predicted_expression():
  fitted, predicted = jnp.zeros((400, 2)), jnp.ones((400, 2))
  config = dataclasses.replace(STILL, predicted=0.25)
  changed = augmentation.disturb_expression(
    fitted, predicted, jnp.ones(2), config, KEY
  )
  assert set(np.unique(changed)) == {0.0, 1.0}
  # Whole expressions, not coefficients, are exchanged.
  np.testing.assert_array_equal(changed[:, 0], changed[:, 1])
  assert float(changed.mean()) == pytest.approx(0.25, abs=0.08)


def test_noise_is_counted_in_the_coefficients_own_scale():
  config = dataclasses.replace(STILL, expression=0.5)
  scale = jnp.array([1.0, 0.1])
  changed = augmentation.disturb_expression(
    jnp.zeros((500, 2)), None, scale, config, KEY
  )
  np.testing.assert_allclose(changed.std(0), [0.5, 0.05], rtol=0.15)
