"""Augmentation of expressions, cameras and the feature image in training.

The inpainting network should take place and colour from the frame, and should
meet in training what it meets in use: expressions predicted from speech, and
poses that are off. The paper has such a step ("the augmented feature map") and
does not describe it: all of this is our choice, and each part can be switched
off.

b batch, r side and c channels of the feature image, e expression coefficients.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pir_jax import ranges
from pir_jax.geometry import cameras as camera_geometry
from pir_jax.ops import images
from pir_jax.runtime import prng
from pir_jax.stages import conditioning
from pir_jax.types import AnyArray, Cameras, FaceBatch


@ranges.declare(predicted=ranges.SHARE)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Random changes of each example; 0 switches a part off.

  Attributes:
    shift: of the feature image, in its pixels, standard deviation.
    angle: rotation of the feature image, radians, standard deviation.
    scale: of its size, relative, standard deviation.
    gain: of each channel, standard deviation.
    noise: added, standard deviation.
    expression: added to the standardised expression before rendering,
      standard deviation.
    predicted: share of examples rendered with the expression which stage 1
      predicts from the clip's own sound, not the fitted one.
    turn: of the camera about the head, radians, standard deviation of each
      axis.
    move: of the camera, head units, standard deviation of each axis.
  """

  shift: float = 0.2
  angle: float = 0.02
  scale: float = 0.02
  gain: float = 0.05
  noise: float = 0.02
  expression: float = 0.05
  predicted: float = 0.0
  turn: float = 0.003
  move: float = 0.001


def noise_at_all_levels(
  shape: tuple[int, int], key: Key[Array, ""]
) -> Float[Array, "b e"]:
  """Samples normal noise, each row of a std of its own, uniform in 0 to 1.

  At one level noise of many dimensions lies on a shell, and what is within it,
  as without noise, is never seen.
  """
  noise = jax.random.normal(prng.named(key, "expression"), shape)
  level = jax.random.uniform(prng.named(key, "noise"), (shape[0], 1))
  return level * noise


def disturb_features(
  feature_image: Float[Array, "b r r c"], config: Config, key: Key[Array, ""]
) -> Float[Array, "b r r c"]:
  """Applies a small random affine, gain and noise to each example."""
  b, _, _, c = feature_image.shape
  keys = jax.random.split(key, 5)
  if config.shift or config.angle or config.scale:
    angle = config.angle * jax.random.normal(keys[0], (b,))
    scale = 1.0 + config.scale * jax.random.normal(keys[1], (b,))
    shift = config.shift * jax.random.normal(keys[2], (b, 2))
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    matrix = jnp.stack(
      [
        jnp.stack([cos, -sin, shift[:, 0]], -1),
        jnp.stack([sin, cos, shift[:, 1]], -1),
      ],
      axis=1,
    )
    feature_image = images.warp(feature_image, matrix)
  gain = 1.0 + config.gain * jax.random.normal(keys[3], (b, 1, 1, c))
  noise = config.noise * jax.random.normal(keys[4], feature_image.shape)
  return feature_image * gain + noise


def disturb_cameras(
  cameras: Cameras, config: Config, key: Key[Array, ""]
) -> Cameras:
  """Turns and moves each camera a little."""
  if not (config.turn or config.move):
    return cameras
  shape = (cameras.pose.shape[0], 3)
  turn = config.turn * jax.random.normal(prng.named(key, "turn"), shape)
  move = config.move * jax.random.normal(prng.named(key, "move"), shape)
  return camera_geometry.moved(cameras, turn, move)


def disturb_expression(
  fitted: Float[AnyArray, "b e"],
  predicted: Float[AnyArray, "b e"] | None,
  scale: Float[AnyArray, "e"],
  config: Config,
  key: Key[Array, ""],
) -> Float[Array, "b e"]:
  """Chooses the fitted or the predicted expression, and adds a little noise.

  Args:
    fitted: raw.
    predicted: raw, of the same frames; None where stage 1 is not used.
    scale: of the coefficients; the noise is in units of it.
    config: of the augmentation.
    key: of the choice and the noise.
  """
  expression = jnp.asarray(fitted)
  if predicted is not None:
    chosen = jax.random.bernoulli(
      prng.named(key, "predicted"), config.predicted, (len(fitted), 1)
    )
    expression = jnp.where(chosen, predicted, expression)
  noise = jax.random.normal(prng.named(key, "expression"), expression.shape)
  return expression + config.expression * scale * noise


def disturb_conditions(
  batch: FaceBatch,
  predicted: Float[AnyArray, "n e"] | None,
  scale: Float[AnyArray, "e"],
  config: Config,
  key: Key[Array, ""],
) -> conditioning.Conditions:
  """Disturbs what the faces of a training batch are rendered from.

  Args:
    batch: of n training frames.
    predicted: raw, of all n, see `disturb_expression`.
    scale: likewise.
    config: of the augmentation.
    key: of all of it.
  """
  if predicted is not None:
    predicted = predicted[batch.index]
  return conditioning.Conditions(
    batch.identity,
    disturb_expression(batch.expression, predicted, scale, config, key),
    disturb_cameras(batch.cameras, config, key),
  )
