"""Stage 3: masked frame + feature image -> frame.

Stage 2 renders the feature image and is frozen unless the config says that
both are trained together. Which losses, mask and augmentation the paper used
is not known: pix2pixHD's losses, the whole face and our own augmentation are
the defaults here.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.models import inpainting, patch_discriminator, vgg
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import augmentation as augmentation_lib
from pir_jax.stages import (
  base,
  conditioning,
  patch_gan,
  precision,
  reconstruction,
)
from pir_jax.types import AnyArray, Cameras, FaceBatch, FaceSpace


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term of the generator counts for; 0 leaves it out.

  The first three are pix2pixHD's, the others our choice.

  Attributes:
    adversarial: LSGAN.
    feature_matching: L1 of the discriminator's features.
    perceptual: L1 of VGG's features.
    lpips: the learned distance on the pinned VGG16's features.
    pixel: L1, pixels under the mask counting more.
    mouth: L1 over the mouth alone.
  """

  adversarial: float = 1.0
  feature_matching: float = 10.0
  perceptual: float = 10.0
  lpips: float = 0.0
  pixel: float = 10.0
  mouth: float = 5.0


def _two_time_scale(learning_rate: float) -> optim_lib.Config:
  return optim_lib.Config(
    learning_rate=learning_rate, b1=0.0, b2=0.9, decay_start=0.5
  )


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 3; the defaults are the paper's sizes and pix2pixHD's losses.

  Attributes:
    model: of the inpainting network; its dtype and remat are overwritten by
      ours, like those of the discriminator and of stage 2's generator.
    discriminator: of the multi-scale discriminator.
    optim: of the inpainting network. Two time scales (Heusel et al. 2017) with
      the rates and decays of SPADE, pix2pixHD's successor; pix2pixHD itself
      has 2e-4 and (0.5, 0.999) for both networks.
    discriminator_optim: of the discriminator, four times as fast.
    weights: of the losses.
    augmentation: of the feature image, in training.
    triplane: run directory of stage 2; empty for the neighbour `triplane`.
    expression: run directory of stage 1, asked where `augmentation.heard` is
      not 0; empty for the neighbour `expression`.
    joint: trains the tri-plane generator along, from where stage 2 left it.
    joint_optim: of that generator.
    vgg19: file of torchvision's VGG19, which pix2pixHD's perceptual loss takes;
      empty for the pinned VGG16.
    blank: value of the pixels under the mask; 0 is mid-grey, -1 black.
    mask_weight: pixels under the mask count this much more.
    perceptual_size: side of the perceptual crop in pixels; 0 takes all.
    perceptual_taps: leading VGG taps used, of 5.
    ema_decay: of the averaged parameters, which are the ones used.
    accumulate: equal parts of a batch, done in turn; see `base.accumulate`.
    dtype: of the networks' activations; see `activations`, as for
    remat: what the gradient computes again.
  """

  model: inpainting.Config = dataclasses.field(
    default_factory=inpainting.Config
  )
  discriminator: patch_discriminator.Config = dataclasses.field(
    default_factory=patch_discriminator.Config
  )
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: _two_time_scale(1e-4)
  )
  discriminator_optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: _two_time_scale(4e-4)
  )
  weights: Weights = dataclasses.field(default_factory=Weights)
  augmentation: augmentation_lib.Config = dataclasses.field(
    default_factory=augmentation_lib.Config
  )
  triplane: str = ""
  expression: str = ""
  joint: bool = False
  joint_optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=1e-4, b1=0.0, b2=0.99
    )
  )
  vgg19: str = ""
  blank: float = 0.0
  mask_weight: float = 2.0
  perceptual_size: int = 0
  perceptual_taps: int = 5
  ema_decay: float = 0.999
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class Conditions(NamedTuple):
  """What a face is painted after: raw coefficients and cameras."""

  identity: Float[AnyArray, "b i"]
  expression: Float[AnyArray, "b e"]
  cameras: Cameras


class Inpainting(base.Stage):
  """The inpainting network and its discriminator.

  Attributes:
    triplane_step: of the run whose generator draws; None where it is not known.
  """

  name = "inpainting"
  triplane_step: int | None = None

  def __init__(
    self,
    config: Config,
    space: FaceSpace,
    perceptual: vgg.Features,
    generator: nnx.Module,
    *,
    num_steps: int,
    mesh: Mesh,
    heard: Float[AnyArray, "n e"] | None = None,
  ):
    """Makes the compiled phases.

    Args:
      config: of the stage.
      space: coefficients of the data.
      perceptual: frozen; LPIPS where that has a weight.
      generator: of stage 2, with its numbers.
      num_steps: of the whole run.
      mesh: where it lives.
      heard: raw expression that stage 1 hears at every training frame, where
        the augmentation shows it.

    Raises:
      ValueError: the networks do not fit what the config asks for.
    """
    if config.weights.lpips and not isinstance(perceptual, vgg.Lpips):
      raise ValueError(
        "weights.lpips needs the pinned VGG16: leave vgg19 empty"
      )
    self.config = config
    self.space = space
    fields = precision.fields(config.dtype, config.remat)
    model = dataclasses.replace(
      config.model,
      feature_channels=generator.config.plane_channels,
      **fields,
    )
    judge = dataclasses.replace(config.discriminator, **fields)
    self.painter = base.Network(
      lambda rngs: inpainting.InpaintingGenerator(model, rngs=rngs)
    )
    self.critic = base.Network(
      lambda rngs: patch_discriminator.MultiscaleDiscriminator(judge, rngs=rngs)
    )
    self._perceptual, features = base.Network.of(perceptual.adapted(**fields))
    # Where it is trained along, one that can be begun, to be replaced by this.
    self.generator, drawn = base.Network.of(generator, **fields)
    frozen = {"perceptual": features, "generator": drawn}
    if heard is not None:
      frozen["heard"] = jnp.asarray(heard, jnp.float32)
    super().__init__(mesh, frozen)
    self._optimizers = {
      "painter": optim_lib.build(config.optim, num_steps),
      "critic": optim_lib.build(config.discriminator_optim, num_steps),
      "generator": optim_lib.build(config.joint_optim, num_steps),
    }
    self._train = self.compile_step(self._train_phase)
    self._evaluate = jax.jit(self._evaluate_phase)
    self._paint = jax.jit(self._paint_phase)
    self._render = jax.jit(self._render_phase)
    self._portray = jax.jit(self._portray_phase)

  def init_state(self, key: Key[Array, ""]) -> base.TrainState:
    """Fresh networks and the averages of those that are used."""
    nets = {
      name: base.new_net(network, prng.named(key, name), self._optimizers[name])
      for name, network in self._trained().items()
    }
    averages = {n: net.params for n, net in nets.items() if n != "critic"}
    return base.TrainState(jnp.int32(0), nets, averages)

  def _trained(self) -> dict[str, base.Network]:
    networks = {"painter": self.painter, "critic": self.critic}
    return networks | (
      {"generator": self.generator} if self.config.joint else {}
    )

  def init(self, key: Key[Array, ""]) -> base.TrainState:
    """As every stage's; a generator that is trained along is stage 2's."""
    state = super().init(key)
    if not self.config.joint:
      return state
    # Copied: a step gives away its memory.
    params = jax.device_put(
      jax.tree.map(jnp.copy, self.frozen["generator"][0]),
      self.shardings().nets["generator"].params,
    )
    return base.begin_from(state, "generator", params)

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
    return {"faces": images.grid([batch.image, self._seen(batch), painted])}

  def paint(
    self,
    state: base.TrainState,
    image: Float[AnyArray, "b h w 3"],
    mask: Float[AnyArray, "b h w 1"],
    conditions: Conditions,
  ) -> Float[Array, "b h w 3"]:
    """Frames painted by the averaged parameters, nothing disturbed."""
    feature_image = self.render(state, conditions)
    return self._paint(state, image, mask, feature_image)

  def render(
    self, state: base.TrainState, conditions: Conditions
  ) -> Float[Array, "b r r c"]:
    """The feature images that `paint` is given."""
    return self._render(state, self.frozen, conditions)

  def portray(
    self, state: base.TrainState, conditions: Conditions
  ) -> Float[Array, "b h w 3"]:
    """The tri-plane's own face images: what stage 2 alone would show."""
    return self._portray(state, self.frozen, conditions)

  def _seen(self, batch: FaceBatch) -> Float[Array, "b h w 3"]:
    return conditioning.masked(batch.image, batch.mask, self.config.blank)

  def _train_phase(self, state, frozen, batch, key):
    """Both updates from one forward pass: the critic sees it detached."""
    weights = dataclasses.asdict(self.config.weights)
    critic = state.nets["critic"]
    given = {
      name: net.params for name, net in state.nets.items() if name != "critic"
    }

    def gradients(batch, key):
      expression, cameras = self._disturbed(frozen, batch, key)
      seen = self._seen(batch)

      def objective(params):
        image = self._painted(
          params,
          state,
          frozen,
          seen,
          Conditions(batch.identity, expression, cameras),
          prng.named(key, "augmentation"),
        )
        terms = self._like(frozen, image, batch, key)
        if weights["adversarial"] or weights["feature_matching"]:
          judge = self.critic.bind(critic.params, critic.buffers)
          judged = functools.partial(patch_gan.painter_terms, judge)
          terms |= self._whole(judged)(seen, image, batch.image)
        loss, metrics = base.total(terms, weights)
        return loss, (metrics, image)

      found, (metrics, image) = jax.grad(objective, has_aux=True)(given)

      def critic_objective(params):
        judge = self.critic.bind(params, critic.buffers)
        return patch_gan.critic_loss(judge, seen, image, batch.image)

      metrics["critic"], found["critic"] = jax.value_and_grad(critic_objective)(
        critic.params
      )
      return found, metrics

    found, metrics = base.accumulate(
      gradients, batch, key, self.config.accumulate
    )
    nets, told = base.update_all(state.nets, found, self._optimizers)
    return base.advance(state, nets, self.config.ema_decay), metrics | told

  def _like(self, frozen, image, batch, key):
    network = self._perceptual.bind(*frozen["perceptual"])
    return reconstruction.painted(self.config, network, image, batch, key)

  def _whole(self, function):
    return precision.whole(self.config.remat, function)

  def _painted(self, params, state, frozen, seen, conditions, key):
    """What the painter makes in training of a rendering that is disturbed."""
    drawn_by = params.get("generator", frozen["generator"][0])
    rendered = self._feature_image(drawn_by, frozen, conditions)
    feature_image = augmentation_lib.disturb(
      rendered, self.config.augmentation, key
    )
    painter = self.painter.bind(
      params["painter"], state.nets["painter"].buffers
    )
    return self._whole(painter)(seen, feature_image).image

  def _evaluate_phase(self, state, frozen, batch, key):
    feature_image = self._render_phase(state, frozen, _conditions(batch))
    image = self._paint_phase(state, batch.image, batch.mask, feature_image)
    terms = self._like(frozen, image, batch, key)
    weights = dataclasses.asdict(self.config.weights)
    return base.total(terms, weights)[1]

  def _paint_phase(self, state, image, mask, feature_image):
    painter = self.painter.bind(
      state.ema["painter"], state.nets["painter"].buffers
    )
    seen = conditioning.masked(image, mask, self.config.blank)
    return painter(seen, feature_image).image

  def _render_phase(self, state, frozen, conditions):
    params = state.ema.get("generator", frozen["generator"][0])
    return self._feature_image(params, frozen, conditions)

  def _portray_phase(self, state, frozen, conditions):
    params = state.ema.get("generator", frozen["generator"][0])
    model = self.generator.bind(params, frozen["generator"][1])
    image = model(*conditioning.inputs(self.space, *conditions)).image
    return jnp.clip(image, -1.0, 1.0)

  def _feature_image(
    self, params: PyTree, frozen: PyTree, conditions: Conditions
  ) -> Float[Array, "b r r c"]:
    """I_F; its noise, where the network has any, is the same for all frames."""
    model = self.generator.bind(params, frozen["generator"][1])
    given = conditioning.inputs(self.space, *conditions)
    return model(*given, upsample=False).feature_image

  def _disturbed(self, frozen, batch, key):
    """The expressions and cameras that a training batch is rendered with."""
    config = self.config.augmentation
    heard = None
    if "heard" in frozen:
      heard = frozen["heard"][batch.index]
    expression = augmentation_lib.shown(
      batch.expression, heard, self.space.expression_scale, config, key
    )
    return expression, augmentation_lib.moved(batch.cameras, config, key)


def _conditions(batch: FaceBatch) -> Conditions:
  return Conditions(batch.identity, batch.expression, batch.cameras)
