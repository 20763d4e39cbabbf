"""Shrinks, crops, warps and tiles images.

b batch, h height, w width, c channels; x to the right, y down, in pixels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def shrink(
  image: Float[Array, "b h w c"], size: int
) -> Float[Array, "b {size} {size} c"]:
  """Shrinks a square image by the mean of whole blocks.

  Raises:
    ValueError: `size` does not divide the image's.
  """
  b, h, w, c = image.shape
  if h != w or h % size:
    raise ValueError(f"size={size} must divide the square image {h} x {w}.")
  factor = h // size
  blocks = image.reshape(b, size, factor, size, factor, c)
  return jnp.mean(blocks, axis=(2, 4))


def crop(
  image: Float[Array, "b h w c"], corner: Int[Array, "b 2"], size: int
) -> Float[Array, "b {size} {size} c"]:
  """Cuts a square of each example from its own upper left corner (y, x)."""
  cut = (size, size, image.shape[-1])
  return jax.vmap(
    lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), cut)
  )(image, corner)


def warp(
  image: Float[Array, "b h w c"], matrix: Float[Array, "b 2 3"]
) -> Float[Array, "b h w c"]:
  """Samples each example at matrix @ (x, y, 1), measured from its centre.

  Bilinear; beyond the edge the nearest edge pixel is repeated.
  """
  _, h, w, c = image.shape
  centre = jnp.array([(w - 1) / 2, (h - 1) / 2])
  y, x = jnp.mgrid[:h, :w]
  points = jnp.stack([x - centre[0], y - centre[1], jnp.ones_like(x)], -1)
  source = jnp.einsum("hwk,bnk->bhwn", points, matrix) + centre

  def lookup(picture, at):
    coordinates = (at[..., 1], at[..., 0])
    return jax.vmap(
      lambda channel: jax.scipy.ndimage.map_coordinates(
        channel, coordinates, order=1, mode="nearest"
      ),
      in_axes=-1,
      out_axes=-1,
    )(picture)

  return jax.vmap(lookup)(image, source).reshape(image.shape[:3] + (c,))


def grid(rows: list[Float[Array, "b h w 3"]]) -> Float[Array, "H W 3"]:
  """Tiles images: a row for each array, a column for each example."""
  return jnp.concatenate(
    [jnp.concatenate(list(row), axis=1) for row in rows], axis=0
  )
