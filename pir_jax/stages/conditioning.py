"""What the two image stages share: conditions, masked frames, LPIPS crops.

b batch, h height, w width, i identity and e expression coefficients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
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
  batches: tuple[Float[Array, "b h w 3"], ...], size: int, key: Key[Array, ""]
) -> tuple[Float[Array, "b _s _s 3"], ...]:
  """Crops the same random squares from several images; size 0 crops none."""
  first = batches[0]
  if not size or size >= first.shape[1]:
    return batches
  corner = jax.random.randint(
    key, (first.shape[0], 2), 0, first.shape[1] - size + 1
  )
  return tuple(images.crop(image, corner, size) for image in batches)


def perceptual(
  lpips: nnx.Module,
  image: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  size: int,
  key: Key[Array, ""],
) -> Float[Array, "b"]:
  """Computes LPIPS of a random crop of side `size`; 0 takes the whole image."""
  return lpips(*crops((image, target), size, key))


def psnr(image: Float[Array, "b h w 3"], batch: FaceBatch) -> Float[Array, "b"]:
  """Computes the PSNR within the head of an image in [-1, 1], in dB."""
  gap = jnp.square(jnp.clip(image, -1.0, 1.0) - batch.image)
  area = jnp.sum(batch.head, (1, 2, 3)) * image.shape[-1]
  error = jnp.sum(batch.head * gap, (1, 2, 3)) / jnp.maximum(area, 1.0)
  return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))
