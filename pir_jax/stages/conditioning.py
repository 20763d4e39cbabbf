"""What the two image stages share: conditions, masked frames, LPIPS crops.

b batch, h height, w width, i identity and e expression coefficients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pir_jax.geometry import cameras as camera_geometry
from pir_jax.ops import images
from pir_jax.types import Cameras, FaceBatch, FaceSpace


class Inputs(NamedTuple):
  """What the generator is conditioned on, standardised."""

  identity: Float[Array, "b i"]
  expression: Float[Array, "b e"]
  cameras: Float[Array, "b 25"]


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
  mouth: Float[Array, "b h w 1"],
  at_mouth: float = 0.0,
) -> tuple[Float[Array, "b _s _s 3"], ...]:
  """Crops the same random squares from several images.

  Args:
    batches: images of the same places.
    size: side of the squares; 0 crops none.
    key: of where they are.
    mouth: 1 on the lips.
    at_mouth: share of the squares that lie about the middle of that, off it by
      at most a quarter of their side; the others lie anywhere.
  """
  num, side = mouth.shape[:2]
  if not size or size >= side:
    return batches
  keys = jax.random.split(key, 3)
  corner = jax.random.randint(keys[0], (num, 2), 0, side - size + 1)
  if at_mouth:
    place = jnp.arange(side)
    middle = jnp.stack(
      [
        jnp.einsum("bhwc,h->b", mouth, place),
        jnp.einsum("bhwc,w->b", mouth, place),
      ],
      axis=1,
    ) / jnp.maximum(jnp.sum(mouth, (1, 2, 3)), 1e-6).reshape(-1, 1)
    off = jax.random.uniform(keys[1], (num, 2), minval=0.25, maxval=0.75) * size
    near = jnp.clip(jnp.round(middle - off), 0, side - size).astype(jnp.int32)
    chosen = jax.random.bernoulli(keys[2], at_mouth, (num, 1))
    corner = jnp.where(chosen, near, corner)
  return tuple(images.crop(image, corner, size) for image in batches)


def psnr(image: Float[Array, "b h w 3"], batch: FaceBatch) -> Float[Array, "b"]:
  """Computes the PSNR within the head of an image in [-1, 1], in dB."""
  gap = jnp.square(jnp.clip(image, -1.0, 1.0) - batch.image)
  area = jnp.sum(batch.head, (1, 2, 3)) * image.shape[-1]
  error = jnp.sum(batch.head * gap, (1, 2, 3)) / jnp.maximum(area, 1.0)
  return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))
