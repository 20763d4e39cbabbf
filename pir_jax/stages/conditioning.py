"""What the two picture stages share: conditions, masked frames, LPIPS crops.

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
  """Raw coefficients and cameras -> what the generator takes."""
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
  """The frame as the network may see it: `blank` where the mask is not 0."""
  # `where`, not a product: not even a NaN under the mask comes through.
  return jnp.where(mask > 0, blank, image)


def crops(
  pictures: tuple[Float[Array, "b h w 3"], ...], size: int, key: Key[Array, ""]
) -> tuple[Float[Array, "b _s _s 3"], ...]:
  """The same random squares of some pictures; 0 for the whole of each."""
  first = pictures[0]
  if not size or size >= first.shape[1]:
    return pictures
  corner = jax.random.randint(
    key, (first.shape[0], 2), 0, first.shape[1] - size + 1
  )
  return tuple(images.crop(image, corner, size) for image in pictures)


def perceptual(
  lpips: nnx.Module,
  image: Float[Array, "b h w 3"],
  target: Float[Array, "b h w 3"],
  size: int,
  key: Key[Array, ""],
) -> Float[Array, "b"]:
  """LPIPS of a random crop of side `size`; 0 for the whole image."""
  return lpips(*crops((image, target), size, key))


def psnr(image: Float[Array, "b h w 3"], batch: FaceBatch) -> Float[Array, "b"]:
  """Of what an image in [-1, 1] shows of the head, against the frame; dB."""
  gap = jnp.square(jnp.clip(image, -1.0, 1.0) - batch.image)
  area = jnp.sum(batch.head, (1, 2, 3)) * image.shape[-1]
  error = jnp.sum(batch.head * gap, (1, 2, 3)) / jnp.maximum(area, 1.0)
  return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))
