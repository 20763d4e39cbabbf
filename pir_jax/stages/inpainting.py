"""Stage 3: masked frame + feature image -> frame.

Stage 2 renders the feature image and is frozen unless the config trains both
together. The paper's losses, mask and augmentation are not known: pix2pixHD's
losses, the whole face and our own augmentation are the defaults here.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from pir_jax import ranges
from pir_jax.models import inpainting, patch_discriminator, vgg
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import (
  accumulation,
  base,
  conditioning,
  gan,
  precision,
  reconstruction,
  train_state,
)
from pir_jax.stages import augmentation as augmentation_lib
from pir_jax.stages.train_state import Metrics, TrainState
from pir_jax.types import AnyArray, ConfigError, FaceBatch, FaceSpace


@ranges.declare()
@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """Weights of the loss terms; 0 leaves a term out.

  The first three are pix2pixHD's, the others our choice.

  Attributes:
    adversarial: LSGAN.
    feature_matching: L1 of the discriminator's features.
    perceptual: L1 of VGG's features.
    lpips: the learned distance on the pinned VGG16's features.
    pixel: L1, pixels under the mask counting more.
    mouth: L1 over the mouth alone, and the eyes where they are inpainted.
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


@ranges.declare(
  blank=ranges.Range(-1, 1),
  perceptual_at_mouth=ranges.SHARE,
  ema_decay=ranges.DECAY,
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
    triplane: run of stage 2; empty for the neighbour `triplane`.
    expression: run of stage 1, used where `augmentation.predicted` is not 0;
      empty for the neighbour `expression`.
    joint: also trains the tri-plane generator, starting from stage 2's.
    joint_optim: of the tri-plane generator.
    vgg19: file of torchvision's VGG19, which pix2pixHD takes; empty for the
      pinned VGG16.
    blank: value of the pixels under the mask; 0 is mid-grey, -1 black.
    mask_weight: pixels under the mask count this much more.
    perceptual_size: side of the perceptual crop in pixels; 0 takes all.
    perceptual_at_mouth: share of these crops that lie about the mouth, or eyes
      where they are inpainted.
    perceptual_layers: leading VGG feature layers used, of 5.
    adversarial_crops: the discriminator sees these crops, not whole frames.
    init_from: run or exported network whose parameters a run begins from.
    ema_decay: of the averages, which are the parameters used.
    accumulate: equal parts of a batch, one after another.
    dtype, remat: of the networks; see `precision`.
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
  perceptual_at_mouth: float = 0.0
  perceptual_layers: int = 5
  adversarial_crops: bool = False
  init_from: str = ""
  ema_decay: float = 0.999
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class Inpainting(base.Stage):
  """The inpainting network and its discriminator.

  Attributes:
    triplane_step: step of stage 2's run; None where it is not known.
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
    resolution: int,
    predicted_expression: Float[AnyArray, "n e"] | None = None,
  ):
    """Builds the networks and the compiled phases.

    Args:
      config: of the stage.
      space: coefficients of the data.
      perceptual: frozen; LPIPS where that has a weight.
      generator: of stage 2, with its parameters.
      num_steps: of the whole run.
      mesh: where it lives.
      resolution: side of the frames, in whose proportion stage 2 is rendered,
        whatever it was trained at.
      predicted_expression: raw, by stage 1 for every training frame, where the
        augmentation uses it.

    Raises:
      ConfigError: the networks do not fit the config.
    """
    if config.weights.lpips and not isinstance(perceptual, vgg.Lpips):
      raise ConfigError("weights.lpips needs VGG16: leave vgg19 empty.")
    self.config = config
    self.space = space
    fields = precision.fields(config.dtype, config.remat)
    model = dataclasses.replace(
      config.model,
      feature_channels=generator.config.plane_channels,
      **fields,
    )
    patches = dataclasses.replace(config.discriminator, **fields)
    self.inpainting = base.Network(
      lambda rngs: inpainting.InpaintingGenerator(model, rngs=rngs)
    )
    self.discriminator = base.Network(
      lambda rngs: patch_discriminator.MultiscaleDiscriminator(
        patches, rngs=rngs
      )
    )
    self._perceptual, features = base.Network.of(perceptual.adapted(**fields))
    self.generator, pretrained = base.Network.of(
      generator, feature_resolution=resolution // model.reduction, **fields
    )
    frozen = {"perceptual": features, "generator": pretrained}
    if predicted_expression is not None:
      frozen["predicted_expression"] = jnp.asarray(
        predicted_expression, jnp.float32
      )
    super().__init__(mesh, frozen)
    self._weights = dataclasses.asdict(config.weights)
    self._optimizers = {
      "inpainting": optim_lib.build(config.optim, num_steps),
      "discriminator": optim_lib.build(config.discriminator_optim, num_steps),
      "generator": optim_lib.build(config.joint_optim, num_steps),
    }
    self._train = self.compile_step(self._train_phase)
    self._evaluate = self.compile_rarely_run(self._evaluate_phase)
    self._inpaint = self.jit(self.inpaint_phase)
    self._render_features = self.jit(self.features_phase)
    self._render = self.jit(self.render_phase)

  def init_state(self, key: Key[Array, ""]) -> TrainState:
    """Initialises the networks and the averages of those that are used."""
    networks = {
      "inpainting": self.inpainting,
      "discriminator": self.discriminator,
    }
    if self.config.joint:
      networks["generator"] = self.generator
    nets, ema = {}, {}
    for name, network in networks.items():
      params, buffers = network.init(prng.named(key, name))
      nets[name] = train_state.new_net(params, buffers, self._optimizers[name])
      if name != "discriminator":
        ema[name] = params
    return TrainState(jnp.int32(0), nets, ema)

  def fresh(self, key: Key[Array, ""]) -> TrainState:
    """Returns a fresh state; a generator that is also trained is stage 2's."""
    state = super().fresh(key)
    if not self.config.joint:
      return state
    arrays = train_state.named("generator", *self.frozen["generator"])
    return train_state.begin_from(state, arrays, "stage 2")

  def step(
    self,
    state: TrainState,
    batch: FaceBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[TrainState, Metrics]:
    """Steps all networks on one inpainted batch, as in pix2pixHD."""
    return self._train(state, batch, prng.at_step(key, index))

  def evaluate(
    self, state: TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> Metrics:
    """Computes the pixel and perceptual terms without augmentation."""
    return self._evaluate(state, self.frozen, batch, key)

  def preview(
    self, state: TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Returns rows: frame, masked frame, inpainted frame."""
    del key
    batch = jax.tree.map(jnp.asarray, batch)
    inpainted = self.inpaint(
      state, batch.image, batch.mask, conditioning.conditions(batch)
    )
    return {"faces": images.grid([batch.image, self._masked(batch), inpainted])}

  def inpaint(
    self,
    state: TrainState,
    image: Float[AnyArray, "b h w 3"],
    mask: Float[AnyArray, "b h w 1"],
    conditions: conditioning.Conditions,
  ) -> Float[Array, "b h w 3"]:
    """Inpaints frames with the averaged parameters."""
    feature_image = self._render_features(state, self.frozen, conditions)
    return self._inpaint(state, image, mask, feature_image)

  def render(
    self, state: TrainState, conditions: conditioning.Conditions
  ) -> Float[Array, "b h w 3"]:
    """Renders stage 2's own face images, in [-1, 1]."""
    return self._render(state, self.frozen, conditions)

  def _masked(self, batch: FaceBatch) -> Float[Array, "b h w 3"]:
    return conditioning.masked(batch.image, batch.mask, self.config.blank)

  def _train_phase(self, state, frozen, batch, key):
    """Updates all networks from one forward pass."""
    weights = self._weights
    params = {name: net.params for name, net in state.nets.items()}
    discriminator_params = params.pop("discriminator")
    buffers = state.nets["discriminator"].buffers
    adversarial = weights["adversarial"] or weights["feature_matching"]

    def step_gradients(batch, key):
      conditions = augmentation_lib.disturb_conditions(
        batch,
        frozen.get("predicted_expression"),
        self.space.expression_scale,
        self.config.augmentation,
        key,
      )
      masked = self._masked(batch)

      def objective(params):
        noise_key = prng.named(key, "augmentation")
        image = self._inpainted(
          params, state, frozen, masked, conditions, noise_key
        )
        terms = self._reconstruction(frozen, image, batch, key)
        compared = masked, image, batch.image
        if self.config.adversarial_crops:
          compared = reconstruction.crops(self.config, compared, batch, key)
        if adversarial:
          discriminator = self.discriminator.bind(discriminator_params, buffers)
          terms |= precision.rematerialize(
            self.config.remat,
            functools.partial(gan.patch_generator_terms, discriminator),
          )(*compared)
        loss, metrics = train_state.total(terms, weights)
        return loss, (metrics, compared)

      def discriminator_objective(params):
        discriminator = self.discriminator.bind(params, buffers)
        return gan.patch_discriminator_loss(discriminator, *compared)

      gradients, (metrics, compared) = jax.grad(objective, has_aux=True)(params)
      if not adversarial:  # Nobody asks the discriminator.
        return gradients, metrics
      loss, gradient = jax.value_and_grad(discriminator_objective)(
        discriminator_params
      )
      metrics["discriminator"], gradients["discriminator"] = loss, gradient
      return gradients, metrics

    gradients, metrics = accumulation.accumulate(
      step_gradients, batch, key, self.config.accumulate
    )
    nets, net_metrics = train_state.update_all(
      state.nets, gradients, self._optimizers
    )
    state = train_state.advance(state, nets, self.config.ema_decay)
    return state, metrics | net_metrics

  def _reconstruction(self, frozen, *compared):
    network = self._perceptual.bind(*frozen["perceptual"])
    return reconstruction.inpainting_terms(self.config, network, *compared)

  def _inpainted(self, params, state, frozen, masked, conditions, key):
    """Inpaints masked frames from an augmented rendering, as in training."""
    generator = params.get("generator", frozen["generator"][0])
    feature_image = augmentation_lib.disturb_features(
      self._feature_image(generator, frozen, conditions),
      self.config.augmentation,
      key,
    )
    model = self.inpainting.bind(
      params["inpainting"], state.nets["inpainting"].buffers
    )
    model = precision.rematerialize(self.config.remat, model)
    return model(masked, feature_image).image

  def _evaluate_phase(self, state, frozen, batch, key):
    feature_image = self.features_phase(
      state, frozen, conditioning.conditions(batch)
    )
    image = self.inpaint_phase(state, batch.image, batch.mask, feature_image)
    terms = self._reconstruction(frozen, image, batch, key)
    return train_state.total(terms, self._weights)[1]

  def inpaint_phase(self, state, image, mask, feature_image):
    model = self.inpainting.bind(
      state.ema["inpainting"], state.nets["inpainting"].buffers
    )
    masked = conditioning.masked(image, mask, self.config.blank)
    return model(masked, feature_image).image

  def features_phase(self, state, frozen, conditions):
    params = state.ema.get("generator", frozen["generator"][0])
    return self._feature_image(params, frozen, conditions)

  def render_phase(self, state, frozen, conditions):
    params = state.ema.get("generator", frozen["generator"][0])
    model = self.generator.bind(params, frozen["generator"][1])
    image = model(*conditioning.inputs(self.space, *conditions)).image
    return jnp.clip(image, -1.0, 1.0)

  def _feature_image(self, params, frozen, conditions):
    """Renders I_F; noise, if the network has any, is equal for all frames."""
    model = self.generator.bind(params, frozen["generator"][1])
    inputs = conditioning.inputs(self.space, *conditions)
    return model(*inputs, upsample=False).feature_image
