"""How like the frames a picture is: the terms that need no judge.

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

EMPTY = -1.0  # What a ray that meets nothing renders.


def target(batch: FaceBatch) -> Float[Array, "b h h 3"]:
  """The frame with nothing around the head."""
  return batch.head * batch.image + (1.0 - batch.head) * EMPTY


def rendered(
  config: Any,
  lpips: vgg.Lpips,
  out: triplane_generator.TriPlaneOutput,
  batch: FaceBatch,
  key: Key[Array, ""],
) -> dict[str, Float[Array, "b"]]:
  """How far what stage 2 renders of a batch is from the frames.

  Args:
    config: of the stage, see `triplane.Config`.
    lpips: with its numbers.
    out: what the generator made.
    batch: the frames.
    key: of the crop.
  """
  wanted = target(batch)
  weight = (
    batch.head
    + (1.0 - batch.head) * config.empty_weight
    + batch.mouth * config.mouth_weight
  )
  size = out.raw_image.shape[1]
  raw_wanted, raw_weight = (images.shrink(x, size) for x in (wanted, weight))
  # Equal outside the head, so that only the head is compared.
  shown = batch.head * out.image + (1.0 - batch.head) * batch.image
  raw_head = images.shrink(batch.head, size)
  raw_shown = raw_head * out.raw_image + (1.0 - raw_head) * raw_wanted
  found = {
    "image": pixel.weighted_l1(out.image, wanted, weight),
    "raw_image": pixel.weighted_l1(out.raw_image, raw_wanted, raw_weight),
    "silhouette": pixel.l1(out.weight_sum[..., None], raw_head),
    "perceptual": conditioning.perceptual(
      lpips,
      shown,
      batch.image,
      config.perceptual_size,
      prng.named(key, "crop"),
    ),
  }
  if config.weights.raw_perceptual:
    found["raw_perceptual"] = lpips(raw_shown, raw_wanted)
  return found


def painted(
  config: Any,
  network: vgg.Features,
  image: Float[Array, "b h h 3"],
  batch: FaceBatch,
  key: Key[Array, ""],
) -> dict[str, Float[Array, "b"]]:
  """How far what stage 3 paints is from the frames.

  Terms without a weight are left out.

  Args:
    config: of the stage, see `inpainting.Config`.
    network: of the perceptual terms, with its numbers.
    image: painted.
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
    terms["mouth"] = pixel.weighted_l1(image, batch.image, batch.mouth)
  if not (weights.perceptual or weights.lpips):
    return terms

  def measure(tap, ours, theirs):
    found = {}
    if weights.perceptual:
      weight = perceptual.TAP_WEIGHTS[tap]
      found["perceptual"] = perceptual.tap_l1(ours, theirs, weight)
    if weights.lpips:
      found["lpips"] = network.distance(tap, ours, theirs)
    return found

  def compare(image, target):
    return network.compare(image, target, measure)

  pair = conditioning.crops(
    (image, batch.image), config.perceptual_size, prng.named(key, "crop")
  )
  taps = precision.whole(config.remat, compare)(*pair)
  return terms | {name: sum(found[name] for found in taps) for name in taps[0]}
