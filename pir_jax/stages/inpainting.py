"""Stage 3: masked frame + feature image -> frame.

Stage 2 is frozen and renders the feature image. Which losses, mask and
augmentation the paper used is not known: pix2pixHD's losses, the whole face
and small affine and gain noise on the feature image are our choice.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.losses import adversarial, feature_matching, pixel
from pir_jax.models import inpainting, patch_discriminator
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import base, faces
from pir_jax.types import AnyArray, Cameras, FaceBatch, FaceSpace


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term of the generator counts for.

  Attributes:
    pixel: L1.
    perceptual: LPIPS of a crop.
    adversarial: LSGAN.
    feature_matching: L1 of the discriminator's features.
  """

  pixel: float = 10.0
  perceptual: float = 10.0
  adversarial: float = 1.0
  feature_matching: float = 10.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Augmentation:
  """How the feature image is disturbed in training, and only there.

  So that the network takes place and colour from the frame and forgives
  expressions that were guessed from speech. The paper has such a step and does
  not say which: this one is our choice.

  Attributes:
    shift: in feature pixels, standard deviation.
    angle: in radians, standard deviation.
    scale: relative, standard deviation.
    gain: of each channel, standard deviation.
    noise: added, standard deviation.
    expression: added to the standardised expression, standard deviation.
  """

  shift: float = 0.5
  angle: float = 0.02
  scale: float = 0.02
  gain: float = 0.05
  noise: float = 0.02
  expression: float = 0.05


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 3; the defaults are the paper's sizes and pix2pixHD's recipe.

  Attributes:
    model: of the inpainting network.
    discriminator: of the multi-scale discriminator.
    optim: of the inpainting network.
    discriminator_optim: of the discriminator.
    weights: of the losses.
    augmentation: of the feature image.
    triplane: run directory of stage 2; empty for the neighbour `triplane`.
    mask_weight: pixels under the mask count this much more.
    mouth_weight: pixels of the mouth count this much more still.
    perceptual_size: side of the LPIPS crop in pixels; 0 takes all.
    perceptual_taps: leading VGG taps used; 5 is the published distance.
    ema_decay: of the averaged parameters, which are the ones used.
  """

  model: inpainting.Config = dataclasses.field(
    default_factory=inpainting.Config
  )
  discriminator: patch_discriminator.Config = dataclasses.field(
    default_factory=patch_discriminator.Config
  )
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=2e-4, b1=0.5, decay_start=0.5
    )
  )
  discriminator_optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=2e-4, b1=0.5, decay_start=0.5
    )
  )
  weights: Weights = dataclasses.field(default_factory=Weights)
  augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
  triplane: str = ""
  mask_weight: float = 2.0
  mouth_weight: float = 4.0
  perceptual_size: int = 0
  perceptual_taps: int = 5
  ema_decay: float = 0.999


class Conditions(NamedTuple):
  """What a face is painted after: raw coefficients and cameras."""

  identity: Float[AnyArray, "b i"]
  expression: Float[AnyArray, "b e"]
  cameras: Cameras


class Inpainting(base.Stage):
  """The inpainting network and its discriminator."""

  name = "inpainting"

  def __init__(
    self,
    config: Config,
    space: FaceSpace,
    lpips: nnx.Module,
    generator: nnx.Module,
    *,
    num_steps: int,
    mesh: Mesh,
  ):
    self.config = config
    self.space = space
    model = dataclasses.replace(
      config.model, feature_channels=generator.config.plane_channels
    )
    self.painter = base.Network(
      lambda rngs: inpainting.InpaintingGenerator(model, rngs=rngs)
    )
    self.critic = base.Network(
      lambda rngs: patch_discriminator.MultiscaleDiscriminator(
        config.discriminator, rngs=rngs
      )
    )
    self._lpips, lpips_arrays = base.Network.of(lpips)
    self._generator, generator_arrays = base.Network.of(generator)
    super().__init__(
      mesh, {"lpips": lpips_arrays, "generator": generator_arrays}
    )
    self._optimizer = optim_lib.build(config.optim, num_steps)
    self._critic_optimizer = optim_lib.build(
      config.discriminator_optim, num_steps
    )
    self._train = self.compile_step(self._train_phase)
    self._evaluate = jax.jit(self._evaluate_phase)
    self._paint = jax.jit(self._paint_phase)

  def init_state(self, key: Key[Array, ""]) -> base.TrainState:
    """Fresh networks and the painter's average."""
    painter = base.new_net(
      self.painter, prng.named(key, "painter"), self._optimizer
    )
    critic = base.new_net(
      self.critic, prng.named(key, "critic"), self._critic_optimizer
    )
    return base.TrainState(
      jnp.int32(0),
      {"painter": painter, "critic": critic},
      {"painter": painter.params},
    )

  def step(
    self,
    state: base.TrainState,
    batch: FaceBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[base.TrainState, base.Metrics]:
    """One step of both networks on one painted batch, as in pix2pixHD."""
    return self._train(state, batch, prng.at_step(key, index))

  def evaluate(
    self, state: base.TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> base.Metrics:
    """Pixel and perceptual terms on held-out frames, nothing disturbed."""
    return self._evaluate(state, self.frozen, batch, key)

  def preview(
    self, state: base.TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Rows: frame, what the network sees of it, what it paints."""
    del key
    batch = jax.tree.map(jnp.asarray, batch)
    painted = self.paint(state, batch.image, batch.mask, _conditions(batch))
    return {
      "faces": images.grid(
        [batch.image, faces.masked(batch.image, batch.mask), painted]
      )
    }

  def paint(
    self,
    state: base.TrainState,
    image: Float[AnyArray, "b h w 3"],
    mask: Float[AnyArray, "b h w 1"],
    conditions: Conditions,
  ) -> Float[Array, "b h w 3"]:
    """Frames painted by the averaged parameters, nothing disturbed."""
    return self._paint(state, self.frozen, image, mask, conditions)

  def _train_phase(self, state, frozen, batch, key):
    """Both updates from one forward pass: the critic sees it detached."""
    weights = dataclasses.asdict(self.config.weights)
    painter, critic = state.nets["painter"], state.nets["critic"]
    feature_image = self._features(frozen, _conditions(batch), key)
    seen = faces.masked(batch.image, batch.mask)

    def painter_objective(params):
      image = self.painter.bind(params, painter.buffers)(
        seen, feature_image
      ).image
      judge = self.critic.bind(critic.params, critic.buffers)
      fake = judge(jnp.concatenate([seen, image], axis=-1))
      real = judge(jnp.concatenate([seen, batch.image], axis=-1))
      terms = {
        **self._picture_terms(frozen, batch, image, key),
        "adversarial": _judged(fake, real=True),
        "feature_matching": feature_matching.feature_matching(
          fake.features, real.features
        ),
      }
      loss, metrics = base.total(terms, weights)
      return loss, (metrics, image)

    gradients, (metrics, image) = jax.grad(painter_objective, has_aux=True)(
      painter.params
    )

    def critic_objective(params):
      judge = self.critic.bind(params, critic.buffers)
      fake = judge(jnp.concatenate([seen, image], axis=-1))
      real = judge(jnp.concatenate([seen, batch.image], axis=-1))
      return 0.5 * jnp.mean(
        _judged(real, real=True) + _judged(fake, real=False)
      )

    critic_loss, critic_gradients = jax.value_and_grad(critic_objective)(
      critic.params
    )
    nets = {
      "painter": base.update(painter, gradients, self._optimizer),
      "critic": base.update(critic, critic_gradients, self._critic_optimizer),
    }
    state = base.advance(state, nets, self.config.ema_decay)
    return state, {**metrics, "critic": critic_loss}

  def _evaluate_phase(self, state, frozen, batch, key):
    image = self._paint_phase(
      state, frozen, batch.image, batch.mask, _conditions(batch)
    )
    terms = self._picture_terms(frozen, batch, image, key)
    weights = dataclasses.asdict(self.config.weights)
    return base.total(terms, weights)[1]

  def _paint_phase(self, state, frozen, image, mask, conditions):
    painter = self.painter.bind(
      state.ema["painter"], state.nets["painter"].buffers
    )
    feature_image = self._features(frozen, conditions, None)
    return painter(faces.masked(image, mask), feature_image).image

  def _picture_terms(
    self,
    frozen: PyTree,
    batch: FaceBatch,
    image: Float[Array, "b h w 3"],
    key: Key[Array, ""],
  ) -> dict[str, Float[Array, "b"]]:
    weight = (
      1.0
      + batch.mask * self.config.mask_weight
      + batch.mouth * self.config.mouth_weight
    )
    return {
      "pixel": pixel.weighted_l1(image, batch.image, weight),
      "perceptual": faces.perceptual(
        self._lpips.bind(*frozen["lpips"]),
        image,
        batch.image,
        self.config.perceptual_size,
        prng.named(key, "crop"),
      ),
    }

  def _features(
    self, frozen: PyTree, conditions: Conditions, key: Key[Array, ""] | None
  ) -> Float[Array, "b r r c"]:
    """I_F of the batch; disturbed when there is a key."""
    augmentation = self.config.augmentation
    given = faces.inputs(self.space, *conditions)
    if key is not None:
      given = given._replace(
        expression=given.expression
        + augmentation.expression
        * jax.random.normal(
          prng.named(key, "expression"), given.expression.shape
        )
      )
    model = self._generator.bind(*frozen["generator"])
    feature_image = model(*given, upsample=False).feature_image
    if key is not None:
      feature_image = disturb(
        feature_image, augmentation, prng.named(key, "augmentation")
      )
    return feature_image


def _conditions(batch: FaceBatch) -> Conditions:
  return Conditions(batch.identity, batch.expression, batch.cameras)


def _judged(
  output: patch_discriminator.PatchOutput, *, real: bool
) -> Float[Array, "b"]:
  """LSGAN summed over the scales."""
  return sum(
    adversarial.least_squares(logits, real=real) for logits in output.logits
  )


def disturb(
  feature_image: Float[Array, "b r r c"],
  augmentation: Augmentation,
  key: Key[Array, ""],
) -> Float[Array, "b r r c"]:
  """Small random affine, gain and noise, drawn for each example."""
  b, _, _, c = feature_image.shape
  keys = jax.random.split(key, 5)
  angle = augmentation.angle * jax.random.normal(keys[0], (b,))
  scale = 1.0 + augmentation.scale * jax.random.normal(keys[1], (b,))
  shift = augmentation.shift * jax.random.normal(keys[2], (b, 2))
  cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
  matrix = jnp.stack(
    [
      jnp.stack([cos, -sin, shift[:, 0]], -1),
      jnp.stack([sin, cos, shift[:, 1]], -1),
    ],
    axis=1,
  )
  gain = 1.0 + augmentation.gain * jax.random.normal(keys[3], (b, 1, 1, c))
  noise = augmentation.noise * jax.random.normal(keys[4], feature_image.shape)
  return images.warp(feature_image, matrix) * gain + noise
