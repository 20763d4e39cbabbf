"""Stage 2: identity, expression and camera -> feature image and face image.

Trained on pairs: the frame is what the tri-plane should look like at its own
coefficients and camera. The paper's losses are not known; pixels and LPIPS over
the head, black around it, are our choice, as are GAN and corrections.

b batch, r side of the feature image.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from pir_jax import ranges
from pir_jax.losses import adversarial as losses
from pir_jax.models import triplane_generator
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import (
  accumulation,
  augmentation,
  base,
  conditioning,
  density_regularization,
  frame_corrections,
  precision,
  reconstruction,
  train_state,
)
from pir_jax.stages import gan as gan_lib
from pir_jax.stages.train_state import Metrics, TrainState
from pir_jax.types import FaceBatch, FaceSpace


@ranges.declare()
@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """Weights of the loss terms; the paper gives none.

  Attributes:
    image: L1 of the face image.
    raw_image: L1 of the first three feature channels.
    perceptual: LPIPS of a crop of the face image.
    raw_perceptual: LPIPS of the raw image.
    silhouette: L1 of where rays meet matter against the head's mask; without
      it black around the head may be black matter.
    adversarial: of the GAN with a dual discriminator; 0: there is none.
    variation: of the density between near points; 0.25 in EG3D, 0 leaves it
      out.
    refinement: of the corrections' squares, where they are enabled.
  """

  image: float = 1.0
  raw_image: float = 1.0
  perceptual: float = 1.0
  raw_perceptual: float = 0.5
  silhouette: float = 0.1
  adversarial: float = 0.0
  variation: float = 0.25
  refinement: float = 0.02


@ranges.declare(perceptual_at_mouth=ranges.SHARE, ema_decay=ranges.DECAY)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 2; the defaults are the paper's sizes.

  Attributes:
    model: of the generator; its dtype and remat are overwritten by ours.
    optim: of the generator; the defaults are EG3D's.
    weights: of the losses.
    gan: with a dual discriminator, if `weights.adversarial` is not 0.
    refinement: corrections of the training frames' fits.
    init_from: what a run begins from: another run, an exported network, or a
      file of EG3D's weights (all but the mapping; `train` then takes the sizes
      of `model` from it); "" for nothing.
    mouth_weight: pixels of the mouth, and of the eyes where they are masked,
      count this much more.
    empty_weight: pixels off the head count this much, and should be empty.
    perceptual_size: side of the LPIPS crop in pixels; 0 takes all.
    perceptual_at_mouth: share of these crops that lie about the mouth, or the
      eyes where they are masked.
    perceptual_layers: leading VGG feature layers used; 5 is the published
      distance.
    expression_noise: largest std of the noise on the raw expression in
      training: what a fit cannot tell apart should look alike. It hides
      coefficients that hardly move in a clip, by which its frames would be
      learnt by heart. Each example has a level of its own, from none on: at one
      level all inputs lie on a shell, and the mean expression within it, which
      no step has seen, fades.
    variation_every: steps between regularisations of the density.
    ema_decay: of the averaged parameters, which are the ones used; it ramps up
      from 0. The default is EG3D's half life of 10,000 images at a batch of 32.
    accumulate: equal parts of a batch, one after another.
    dtype: of the networks' activations; see `precision`.
    remat: what the gradient computes again; see `precision`.
  """

  model: triplane_generator.Config = dataclasses.field(
    default_factory=triplane_generator.Config
  )
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=0.0025, b1=0.0, b2=0.99, warmup_steps=100
    )
  )
  weights: Weights = dataclasses.field(default_factory=Weights)
  gan: gan_lib.Config = dataclasses.field(default_factory=gan_lib.Config)
  refinement: frame_corrections.Config = dataclasses.field(
    default_factory=frame_corrections.Config
  )
  init_from: str = ""
  mouth_weight: float = 4.0
  empty_weight: float = 0.1
  perceptual_size: int = 0
  perceptual_at_mouth: float = 0.0
  perceptual_layers: int = 5
  expression_noise: float = 0.0
  variation_every: int = 4
  ema_decay: float = 0.998
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class TriPlane(base.Stage):
  """Trains the tri-plane generator on the frames."""

  name = "triplane"

  def __init__(
    self,
    config: Config,
    space: FaceSpace,
    lpips: nnx.Module,
    *,
    num_steps: int,
    mesh: Mesh,
  ):
    """Builds the networks and the compiled phases.

    Args:
      config: of the stage.
      space: coefficients of the data.
      lpips: frozen, for the perceptual terms.
      num_steps: of the whole run.
      mesh: where it lives.
    """
    frame_corrections.check(config.refinement)
    self.config = config
    self.space = space
    fields = precision.fields(config.dtype, config.remat)
    model = dataclasses.replace(
      config.model,
      **fields,
      identity_size=space.identity_size,
      expression_size=space.expression_size,
    )
    self.generator = base.Network(
      lambda rngs: triplane_generator.TriPlaneGenerator(model, rngs=rngs)
    )
    self._lpips, frozen = base.Network.of(lpips.adapted(**fields))
    super().__init__(mesh, {"lpips": frozen})
    self._weights = dataclasses.asdict(config.weights)
    self.gan = None
    if config.weights.adversarial:
      self.gan = gan_lib.DualGan(
        config.gan,
        resolution=model.resolution,
        num_steps=num_steps,
        accumulate=config.accumulate,
        dtype=config.dtype,
        remat=config.remat,
      )
    self._optimizers = {
      "generator": optim_lib.build_lazy(
        config.optim,
        num_steps,
        config.variation_every if config.weights.variation else 0,
      ),
      "refinement": optim_lib.build(config.refinement.optim, num_steps),
    }
    self._train = self.compile_step(
      functools.partial(self._train_phase, adversarial=False), "generator step"
    )
    if config.weights.variation:
      self._regularize = self.compile_step(
        self._variation_phase, "density regularization", config.variation_every
      )
    if self.gan is not None:
      self._train_adversarial = self.compile_step(
        functools.partial(self._train_phase, adversarial=True),
        "adversarial generator step",
      )
      self._discriminate = self.compile_step(
        self._discriminator_phase, "discriminator step"
      )
      self._penalize = self.compile_step(
        self._penalty_phase, "R1 penalty", config.gan.r1_every
      )
    self._evaluate = self.compile_rarely_run(self._evaluate_phase)
    self._render = self.compile_rarely_run(self._render_phase)

  def init_state(self, key: Key[Array, ""]) -> TrainState:
    """Initialises the generator, its average, and what the config enables."""
    optimizer = self._optimizers["generator"]
    net = train_state.new_net(*self.generator.init(key), optimizer)
    nets = {"generator": net}
    if self.gan is not None:
      nets["discriminator"] = self.gan.new_net(prng.named(key, "discriminator"))
    if self.config.refinement.enabled:
      corrections = frame_corrections.zeros(
        self.config.refinement, self.space.expression_size
      )
      nets["refinement"] = train_state.new_net(
        corrections, {}, self._optimizers["refinement"]
      )
    return TrainState(jnp.int32(0), nets, {"generator": net.params})

  def step(
    self,
    state: TrainState,
    batch: FaceBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[TrainState, Metrics]:
    """Steps the generator, and whatever else is due.

    As in StyleGAN2, regularisers take steps of their own, now and then.
    """
    key = prng.at_step(key, index)
    config = self.config
    adversarial = self.gan is not None and index >= config.gan.start
    metrics = {}
    if config.weights.variation and not index % config.variation_every:
      phase_key = prng.named(key, "variation")
      state, metrics = self._regularize(state, batch, phase_key)
    if adversarial:
      phase_key = prng.named(key, "discriminator")
      state, phase_metrics = self._discriminate(state, batch, phase_key)
      metrics |= phase_metrics
      if not (index - config.gan.start) % config.gan.r1_every:
        state, phase_metrics = self._penalize(state, batch, key)
        metrics |= phase_metrics
    train = self._train_adversarial if adversarial else self._train
    state, phase_metrics = train(state, batch, key)
    return state, phase_metrics | metrics

  def evaluate(
    self, state: TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> Metrics:
    """Computes the terms on held-out frames with the averaged parameters."""
    return self._evaluate(state, self.frozen, batch, key)

  def preview(
    self, state: TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Returns rows: frame, face image, raw image, depth (near is bright)."""
    del key
    out = self._render(state, batch)
    near, far = jnp.min(out.depth), jnp.max(out.depth)
    depth = 1.0 - 2.0 * (out.depth[..., None] - near) / (far - near)
    shape = out.image.shape
    rows = [
      jnp.broadcast_to(
        jax.image.resize(x, (*shape[:3], x.shape[-1]), "nearest"), shape
      )
      for x in (jnp.asarray(batch.image), out.image, out.raw_image, depth)
    ]
    return {"faces": images.grid(rows)}

  def _train_phase(self, state, frozen, batch, key, *, adversarial):
    params = {
      name: net.params
      for name, net in state.nets.items()
      if name != "discriminator"
    }

    def objective(params, batch, key):
      out, terms = self._terms(params, state.nets, frozen, batch, key)
      if adversarial:
        logits = self.gan.logits(
          state.nets["discriminator"], _pair(out), batch.cameras, state.step
        )
        terms["adversarial"] = losses.non_saturating(logits, real=True)
      return train_state.total(terms, self._weights)

    gradients, metrics = accumulation.accumulate_grad(
      objective, params, batch, key, self.config.accumulate
    )
    nets, net_metrics = train_state.update_all(
      state.nets, gradients, self._optimizers
    )
    state = train_state.advance(state, nets, self.config.ema_decay)
    return state, metrics | net_metrics

  def _variation_phase(self, state, frozen, batch, key):
    """Regularises the density: a step of the generator alone."""
    del frozen
    net = state.nets["generator"]

    def objective(params, batch, key):
      conditions, _ = frame_corrections.inputs(
        self.config.refinement, None, self.space, batch
      )
      model = self.generator.bind(params, net.buffers)
      mean = jnp.mean(
        density_regularization.density_variation(model, conditions, key)
      )
      # Rare steps count for all those between.
      share = self.config.variation_every * self._weights["variation"]
      return share * mean, {"variation": mean}

    gradients, metrics = accumulation.accumulate_grad(
      objective, net.params, batch, key, self.config.accumulate
    )
    net, net_metrics = train_state.update(
      "generator.variation", net, gradients, self._optimizers["generator"]
    )
    nets = {**state.nets, "generator": net}
    return state._replace(nets=nets), metrics | net_metrics

  def _discriminator_phase(self, state, frozen, batch, key):
    del frozen
    params = {name: net.params for name, net in state.nets.items()}

    def fake(batch, key):
      return _pair(self._generate(params, state.nets, batch, key)[0])

    return self.gan.step(state, fake, self._real, batch, key)

  def _penalty_phase(self, state, frozen, batch, key):
    del frozen
    return self.gan.penalty_step(state, self._real, batch, key)

  def _real(self, batch):
    target = reconstruction.target(batch)
    size = self.config.model.feature_resolution
    return gan_lib.Pair(target, images.shrink(target, size))

  def _evaluate_phase(self, state, frozen, batch, key):
    params = {"generator": state.ema["generator"]}
    out, terms = self._terms(
      params, state.nets, frozen, batch, key, train=False
    )
    metrics = train_state.total(terms, self._weights)[1]
    return {**metrics, "psnr": jnp.mean(conditioning.psnr(out.image, batch))}

  def _render_phase(self, state, batch):
    params = {"generator": state.ema["generator"]}
    return self._generate(params, state.nets, batch, None)[0]

  def _generate(self, params, nets, batch, key):
    """Runs the generator on a batch; with a key as in training.

    Returns the output, and the corrections' term if there is one.
    """
    model = self.generator.bind(params["generator"], nets["generator"].buffers)
    conditions, terms = frame_corrections.inputs(
      self.config.refinement, params.get("refinement"), self.space, batch
    )
    model = precision.rematerialize(self.config.remat, model)
    if key is None:
      return model(*conditions), terms
    noise = augmentation.noise_at_all_levels(conditions.expression.shape, key)
    std = self.config.expression_noise / self.space.expression_scale
    conditions = conditions._replace(
      expression=conditions.expression + std * noise
    )
    return model(*conditions, key=prng.named(key, "render")), terms

  def _terms(self, params, nets, frozen, batch, key, train=True):
    """Renders a batch and computes its terms."""
    out, terms = self._generate(params, nets, batch, key if train else None)
    lpips = self._lpips.bind(*frozen["lpips"])
    return out, terms | reconstruction.rendering_terms(
      self.config, lpips, out, batch, key
    )


def _pair(out: triplane_generator.TriPlaneOutput) -> gan_lib.Pair:
  return gan_lib.Pair(out.image, out.raw_image)
