"""Reconstruction terms: those that need no discriminator.

b batch, h side of the frame.
"""

from typing import Any

from jaxtyping import Array, Float, Key

from pir_jax.losses import perceptual, pixel
from pir_jax.models import triplane_generator, vgg
from pir_jax.ops import images
from pir_jax.runtime import prng
from pir_jax.stages import conditioning, precision
from pir_jax.types import FaceBatch

EMPTY = -1.0  # The colour of a ray that meets nothing.


def target(batch: FaceBatch) -> Float[Array, "b h h 3"]:
  """Returns the frame with everything but the head emptied."""
  return batch.head * batch.image + (1.0 - batch.head) * EMPTY


def crops(
  config: Any,
  pictures: tuple[Float[Array, "b h h 3"], ...],
  batch: FaceBatch,
  key: Key[Array, ""],
) -> tuple[Float[Array, "b _s _s 3"], ...]:
  """Crops the squares that the perceptual terms of a step see."""
  return conditioning.crops(
    pictures,
    config.perceptual_size,
    prng.named(key, "crop"),
    conditioning.detail(batch),
    config.perceptual_at_mouth,
  )


def rendering_terms(
  config: Any,
  lpips: vgg.Lpips,
  out: triplane_generator.TriPlaneOutput,
  batch: FaceBatch,
  key: Key[Array, ""],
) -> dict[str, Float[Array, "b"]]:
  """Computes the terms of the images that stage 2 renders.

  Args:
    config: of the stage, see `triplane.Config`.
    lpips: with its parameters.
    out: of the generator.
    batch: the frames.
    key: of the crop.
  """
  full_target = target(batch)
  weight = (
    batch.head
    + (1.0 - batch.head) * config.empty_weight
    + conditioning.detail(batch) * config.mouth_weight
  )
  size = out.raw_image.shape[1]
  raw_target, raw_weight = (
    images.shrink(x, size) for x in (full_target, weight)
  )
  # Equal outside the head, so that only the head is compared.
  composed = batch.head * out.image + (1.0 - batch.head) * batch.image
  raw_head = images.shrink(batch.head, size)
  raw_composed = raw_head * out.raw_image + (1.0 - raw_head) * raw_target
  terms = {
    "image": pixel.weighted_l1(out.image, full_target, weight),
    "raw_image": pixel.weighted_l1(out.raw_image, raw_target, raw_weight),
    "silhouette": pixel.l1(out.weight_sum[..., None], raw_head),
    "perceptual": lpips(*crops(config, (composed, batch.image), batch, key)),
  }
  if config.weights.raw_perceptual:
    terms["raw_perceptual"] = lpips(raw_composed, raw_target)
  return terms


def inpainting_terms(
  config: Any,
  network: vgg.Features,
  image: Float[Array, "b h h 3"],
  batch: FaceBatch,
  key: Key[Array, ""],
) -> dict[str, Float[Array, "b"]]:
  """Computes the terms of the frames that stage 3 inpaints.

  Terms without a weight are left out.

  Args:
    config: of the stage, see `inpainting.Config`.
    network: of the perceptual terms, with its parameters.
    image: inpainted.
    batch: the frames.
    key: of the crop.
  """
  weights = config.weights
  terms = {
    "pixel": pixel.weighted_l1(
      image, batch.image, 1.0 + batch.mask * config.mask_weight
    )
  }
  if weights.mouth:
    terms["mouth"] = pixel.weighted_l1(
      image, batch.image, conditioning.detail(batch)
    )
  if not (weights.perceptual or weights.lpips):
    return terms

  def measure(layer_index, features, target):
    layer_terms = {}
    if weights.perceptual:
      layer_terms["perceptual"] = perceptual.layer_l1(
        features, target, perceptual.LAYER_WEIGHTS[layer_index]
      )
    if weights.lpips:
      layer_terms["lpips"] = network.distance(layer_index, features, target)
    return layer_terms

  def compare(image, target):
    return network.compare(image, target, measure)

  pair = crops(config, (image, batch.image), batch, key)
  layers = precision.rematerialize(config.remat, compare)(*pair)
  return terms | {name: sum(x[name] for x in layers) for name in layers[0]}
