"""What the two image stages share: conditions, masked frames, LPIPS crops.

b batch, h height, w width, i identity and e expression coefficients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pir_jax.geometry import cameras as camera_geometry
from pir_jax.ops import images
from pir_jax.types import AnyArray, Cameras, FaceBatch, FaceSpace


class Conditions(NamedTuple):
  """What a face is rendered from: raw coefficients and cameras."""

  identity: Float[AnyArray, "b i"]
  expression: Float[AnyArray, "b e"]
  cameras: Cameras


class Inputs(NamedTuple):
  """What the generator is conditioned on, standardised."""

  identity: Float[Array, "b i"]
  expression: Float[Array, "b e"]
  cameras: Float[Array, "b 25"]


def conditions(batch: FaceBatch) -> Conditions:
  """Returns what the faces of a batch are rendered from."""
  return Conditions(batch.identity, batch.expression, batch.cameras)


def inputs(
  space: FaceSpace,
  identity: Float[Array, "b i"],
  expression: Float[Array, "b e"],
  cameras: Cameras,
) -> Inputs:
  """Standardises raw coefficients and flattens cameras for the generator."""
  return Inputs(
    identity,
    space.standardise(expression),
    camera_geometry.to_vector(cameras),
  )


def masked(
  image: Float[Array, "b h w 3"],
  mask: Float[Array, "b h w 1"],
  blank: float = 0.0,
) -> Float[Array, "b h w 3"]:
  """Replaces the frame by `blank` where the mask is not 0."""
  # `where`, not a product: not even a NaN under the mask comes through.
  return jnp.where(mask > 0, blank, image)


def crops(
  batches: tuple[Float[Array, "b h w 3"], ...],
  size: int,
  key: Key[Array, ""],
  detail: Float[Array, "b h w 1"],
  at_detail: float = 0.0,
) -> tuple[Float[Array, "b _s _s 3"], ...]:
  """Crops the same random squares from several images.

  Args:
    batches: images of the same places.
    size: side of the squares; 0 crops none.
    key: of where they are.
    detail: 1 where much is to be seen, such as the lips.
    at_detail: share of the squares that have a pixel of that, any as likely as
      another, in their middle, as far as the image goes; the others lie
      anywhere.
  """
  num, side = detail.shape[:2]
  if not size or size >= side:
    return batches
  keys = jax.random.split(key, 3)
  corner = jax.random.randint(keys[0], (num, 2), 0, side - size + 1)
  if at_detail:
    weight = jnp.maximum(detail.reshape(num, -1), 1e-12)
    pixel = jax.random.categorical(keys[1], jnp.log(weight))
    middle = jnp.stack(jnp.divmod(pixel, detail.shape[2]), axis=1)
    near = jnp.clip(middle - size // 2, 0, side - size)
    chosen = jax.random.bernoulli(keys[2], at_detail, (num, 1))
    corner = jnp.where(chosen, near, corner)
  return tuple(images.crop(image, corner, size) for image in batches)


def detail(batch: FaceBatch) -> Float[Array, "b h w 1"]:
  """Returns the mouth and, where they are inpainted, the eyes."""
  return jnp.maximum(batch.mouth, batch.eyes * batch.mask)


def psnr(image: Float[Array, "b h w 3"], batch: FaceBatch) -> Float[Array, "b"]:
  """Computes the PSNR within the head of an image in [-1, 1], in dB."""
  gap = jnp.square(jnp.clip(image, -1.0, 1.0) - batch.image)
  area = jnp.sum(batch.head, (1, 2, 3)) * image.shape[-1]
  error = jnp.sum(batch.head * gap, (1, 2, 3)) / jnp.maximum(area, 1.0)
  return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))
