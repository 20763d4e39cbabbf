"""The two GANs: stage 2's dual discriminator and stage 3's patch discriminator.

The paper describes no GAN of stage 2; it is our choice, by EG3D's recipe. Stage
3 has pix2pixHD's: LSGAN on a multi-scale PatchGAN that sees the masked frame
beside the image, and feature matching.
b batch, h side of the image, r side of the raw image.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from pir_jax import ranges
from pir_jax.geometry import cameras as camera_geometry
from pir_jax.losses import adversarial, feature_matching
from pir_jax.models import dual_discriminator, patch_discriminator
from pir_jax.ops import filters
from pir_jax.runtime import optim as optim_lib
from pir_jax.stages import accumulation, base, precision, train_state
from pir_jax.stages.train_state import Metrics, NetState, TrainState
from pir_jax.types import Cameras, FaceBatch


@ranges.declare(blur_steps=ranges.COUNT_OR_NONE)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 2's GAN; the defaults are EG3D's, but for `start`.

  Attributes:
    model: of the discriminator; its label is the camera. Its resolution is
      taken from the generator.
    optim: of the discriminator.
    start: first step of the GAN; before it, faces are too coarse to
      discriminate.
    r1: gamma of the penalty on the discriminator's gradient at real images.
    r1_every: steps between penalties.
    blur: std at the start, in pixels of the image, of the blur over all that
      the discriminator sees.
    blur_steps: over which the blur fades to none (200,000 images in EG3D).
  """

  model: dual_discriminator.Config = dataclasses.field(
    default_factory=dual_discriminator.Config
  )
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=0.002, b1=0.0, b2=0.99
    )
  )
  start: int = 0
  r1: float = 1.0
  r1_every: int = 16
  blur: float = 10.0
  blur_steps: int = 6250


class Pair(NamedTuple):
  """An image and its raw image, which are discriminated together."""

  image: Float[Array, "b h h 3"]
  raw_image: Float[Array, "b r r 3"]


class DualGan:
  """Stage 2's discriminator: its network and its steps."""

  def __init__(
    self,
    config: Config,
    *,
    resolution: int,
    num_steps: int,
    accumulate: int = 1,
    dtype: str = "float32",
    remat: str = "none",
  ):
    self.config = config
    self._accumulate = accumulate
    model = dataclasses.replace(
      config.model,
      resolution=resolution,
      label_size=25,
      **precision.fields(dtype, remat),
    )
    self.network = base.Network(
      lambda rngs: dual_discriminator.DualDiscriminator(model, rngs=rngs)
    )
    self._optimizer = optim_lib.build_lazy(
      config.optim, num_steps, config.r1_every
    )

  def new_net(self, key: Key[Array, ""]) -> NetState:
    """Initialises the discriminator and its optimiser."""
    return train_state.new_net(*self.network.init(key), self._optimizer)

  def logits(
    self,
    net: NetState,
    pair: Pair,
    cameras: Cameras,
    step: Int[Array, ""],
    *,
    real: bool = False,
    params: PyTree | None = None,
  ) -> Float[Array, "b"]:
    """Computes the discriminator's logits of images behind the fading blur.

    As in EG3D only a real raw image is blurred: a raw image that is made is
    smooth enough.

    Args:
      net: the discriminator.
      pair: its input.
      cameras: its label.
      step: of the run, for the blur.
      real: the images are frames.
      params: instead of the net's own, to be differentiated by.
    """
    past = (step - self.config.start) / max(self.config.blur_steps, 1)
    sigma = self.config.blur * jnp.clip(1.0 - past, 0.0, 1.0)
    model = self.network.bind(
      net.params if params is None else params, net.buffers
    )
    raw_image = pair.raw_image
    if real:
      raw_image = filters.gaussian_blur(raw_image, sigma)
    return model(
      filters.gaussian_blur(pair.image, sigma),
      raw_image,
      camera_geometry.to_vector(cameras),
    )

  def step(
    self,
    state: TrainState,
    fake: Callable[[FaceBatch, Key[Array, ""]], Pair],
    real: Callable[[FaceBatch], Pair],
    batch: FaceBatch,
    key: Key[Array, ""],
  ) -> tuple[TrainState, Metrics]:
    """Steps the discriminator on the non-saturating loss.

    Args:
      state: whose discriminator is stepped.
      fake: renders a batch.
      real: returns a batch's frames.
      batch: of the step.
      key: of the rendering.
    """
    net = state.nets["discriminator"]

    def objective(params, batch, key):
      def loss(pair, real):
        logits = self.logits(
          net, pair, batch.cameras, state.step, real=real, params=params
        )
        return jnp.mean(adversarial.non_saturating(logits, real=real))

      terms = {
        "discriminator_fake": loss(fake(batch, key), real=False),
        "discriminator_real": loss(real(batch), real=True),
      }
      return sum(terms.values()), terms

    return self._update("discriminator", state, objective, batch, key)

  def penalty_step(
    self,
    state: TrainState,
    real: Callable[[FaceBatch], Pair],
    batch: FaceBatch,
    key: Key[Array, ""],
  ) -> tuple[TrainState, Metrics]:
    """Steps the discriminator on R1 alone.

    It counts for all the steps between two of its kind.
    """
    net = state.nets["discriminator"]

    def objective(params, batch, key):
      del key
      penalty = adversarial.r1_penalty(
        lambda pair: self.logits(
          net, pair, batch.cameras, state.step, real=True, params=params
        ),
        real(batch),
      )
      mean = jnp.mean(penalty)
      share = 0.5 * self.config.r1 * self.config.r1_every
      return share * mean, {"r1": mean}

    return self._update("discriminator.r1", state, objective, batch, key)

  def _update(self, name, state, objective, batch, key):
    net = state.nets["discriminator"]
    gradients, metrics = accumulation.accumulate_grad(
      objective, net.params, batch, key, self._accumulate
    )
    net, net_metrics = train_state.update(name, net, gradients, self._optimizer)
    nets = {**state.nets, "discriminator": net}
    return state._replace(nets=nets), metrics | net_metrics


def patch_generator_terms(
  discriminator: patch_discriminator.MultiscaleDiscriminator,
  masked: Float[Array, "b h h 3"],
  image: Float[Array, "b h h 3"],
  target: Float[Array, "b h h 3"],
) -> dict[str, Float[Array, "b"]]:
  """Computes the inpainting network's terms against the patch discriminator."""
  fake = discriminator(jnp.concatenate([masked, image], axis=-1))
  real = discriminator(jnp.concatenate([masked, target], axis=-1))
  return {
    "adversarial": _multiscale_least_squares(fake, real=True),
    "feature_matching": feature_matching.feature_matching(
      fake.features, real.features
    ),
  }


def patch_discriminator_loss(
  discriminator: patch_discriminator.MultiscaleDiscriminator,
  masked: Float[Array, "b h h 3"],
  image: Float[Array, "b h h 3"],
  target: Float[Array, "b h h 3"],
) -> Float[Array, ""]:
  """Computes half the sum of the real and fake losses, as published."""
  fake = discriminator(jnp.concatenate([masked, image], axis=-1))
  real = discriminator(jnp.concatenate([masked, target], axis=-1))
  return 0.5 * jnp.mean(
    _multiscale_least_squares(real, real=True)
    + _multiscale_least_squares(fake, real=False)
  )


def _multiscale_least_squares(
  output: patch_discriminator.PatchOutput, *, real: bool
) -> Float[Array, "b"]:
  """Sums LSGAN over the scales."""
  return sum(
    adversarial.least_squares(logits, real=real) for logits in output.logits
  )
