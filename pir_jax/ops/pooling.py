"""Pooling and instance normalisation of images.

b batch, h height, w width, c channels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def halve(
  image: Float[Array, "b h w c"],
) -> Float[Array, "b h2 w2 c"]:
  """Averages the 3x3 neighbours of every second pixel, h2 = ceil(h / 2).

  Pixels outside the image are left out of the mean rather than counted as
  zero, so a constant image stays constant (pix2pixHD's pyramid).
  """
  for axis in (1, 2):
    size = image.shape[axis]
    half = (size + 1) // 2
    pad = [(0, 0)] * 4
    pad[axis] = (1, 2 * half - size)
    # Three strided slices: a windowed reduction has a slow gradient on a CPU.
    padded = jnp.pad(image, pad)
    total = sum(
      jax.lax.slice_in_dim(padded, k, k + 2 * half - 1, 2, axis)
      for k in range(3)
    )
    inside = jnp.pad(jnp.ones(size), pad[axis])
    count = sum(inside[k : k + 2 * half - 1 : 2] for k in range(3))
    shape = [1] * 4
    shape[axis] = half
    image = total / count.reshape(shape).astype(image.dtype)
  return image


def max_pool(
  image: Float[Array, "b h w c"], size: int, stride: int
) -> Float[Array, "b h2 w2 c"]:
  """Takes the largest value of each window that lies inside the image."""
  for axis in (1, 2):
    num = (image.shape[axis] - size) // stride + 1
    if num < 1:
      raise ValueError(
        f"image of shape {image.shape[1:3]} is smaller than the pooling "
        f"window of {size}: give a larger image"
      )
    # jnp.maximum of slices: the gradient of a windowed max is a scatter.
    last = (num - 1) * stride + 1
    parts = [
      jax.lax.slice_in_dim(image, k, k + last, stride, axis)
      for k in range(size)
    ]
    image = parts[0]
    for part in parts[1:]:
      image = jnp.maximum(image, part)
  return image


def instance_norm(
  image: Float[Array, "b h w c"], epsilon: float = 1e-5
) -> Float[Array, "b h w c"]:
  """Scales each channel of each example to mean 0, variance 1, in float32."""
  x = image.astype(jnp.float32)
  mean = jnp.mean(x, axis=(1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
  return ((x - mean) * jax.lax.rsqrt(variance + epsilon)).astype(image.dtype)
