"""Stage 2: identity, expression and camera -> feature image and face image.

Trained on pairs: the frame is what the tri-plane should look like at its own
coefficients and camera. The paper's losses are not known; pixels and LPIPS over
the head, black around it, are our choice, as are game and corrections.

b batch, r side of the feature image.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from pir_jax.losses import adversarial
from pir_jax.models import triplane_generator
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import (
  base,
  conditioning,
  density_regularization,
  frame_corrections,
  gan,
  precision,
  reconstruction,
)
from pir_jax.types import FaceBatch, FaceSpace


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term counts for; the paper leaves all of them open.

  Attributes:
    image: L1 of the face image.
    raw_image: L1 of the first three feature channels.
    perceptual: LPIPS of a crop of the face image.
    raw_perceptual: LPIPS of the raw image.
    silhouette: L1 of where rays meet matter against the head's mask; without
      it black around the head may be black matter.
    adversarial: of the game against a dual discriminator; 0: there is none.
    variation: of the density between points close by; 0.25 in EG3D, 0 leaves it
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


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 2; the defaults are the paper's sizes.

  Attributes:
    model: of the generator; its dtype and remat are overwritten by ours.
    optim: of the generator; the defaults are EG3D's.
    weights: of the losses.
    game: against a dual discriminator, if `weights.adversarial` is not 0.
    refinement: corrections of the training frames' fits.
    warm_start: file of EG3D's weights that a run begins from, all but the
      mapping; `train` then takes the sizes of `model` from it.
    mouth_weight: pixels of the mouth count this much more.
    empty_weight: pixels off the head count this much, and should be empty.
    perceptual_size: side of the LPIPS crop in pixels; 0 takes all.
    perceptual_taps: leading VGG taps used; 5 is the published distance.
    expression_noise: added to the raw expression in training, deviation: what
      a fit cannot tell apart should look alike. It drowns coefficients that
      hardly move in a clip, by which its frames would be learnt by heart.
    variation_every: steps between regularisations of the density.
    ema_decay: of the averages, which are used; it ramps up from 0. The default
      is EG3D's half life of 10,000 images at a batch of 32.
    accumulate: equal parts of a batch, done in turn; see `base.accumulate`.
    dtype: of the networks' activations; see `activations`, as for
    remat: what the gradient computes again.
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
  game: gan.Config = dataclasses.field(default_factory=gan.Config)
  refinement: frame_corrections.Config = dataclasses.field(
    default_factory=frame_corrections.Config
  )
  warm_start: str = ""
  mouth_weight: float = 4.0
  empty_weight: float = 0.1
  perceptual_size: int = 0
  perceptual_taps: int = 5
  expression_noise: float = 0.0
  variation_every: int = 4
  ema_decay: float = 0.998
  accumulate: int = 1
  dtype: str = "float32"
  remat: str = "none"


class TriPlane(base.Stage):
  """The tri-plane generator against the frames."""

  name = "triplane"

  def __init__(
    self,
    config: Config,
    space: FaceSpace,
    lpips: nnx.Module,
    *,
    num_steps: int,
    mesh: Mesh,
    published: Callable[[], nnx.Module] | None = None,
  ):
    """Makes the compiled phases.

    Args:
      config: of the stage.
      space: coefficients of the data.
      lpips: frozen, for the perceptual terms.
      num_steps: of the whole run.
      mesh: where it lives.
      published: reads the generator that a fresh state begins from.
    """
    frame_corrections.check(config.refinement)
    self.config = config
    self.space = space
    self._published = published
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
    self.game = None
    if config.weights.adversarial:
      self.game = gan.Game(
        config.game,
        resolution=model.resolution,
        num_steps=num_steps,
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
      functools.partial(self._train_phase, judged=False)
    )
    if config.weights.variation:
      self._vary = self.compile_step(
        self._variation_phase, "smoothness", config.variation_every
      )
    if self.game is not None:
      self._train_judged = self.compile_step(
        functools.partial(self._train_phase, judged=True), "a step in the game"
      )
      self._judge = self.compile_step(self._judge_phase, "a step of the judge")
      self._penalise = self.compile_step(
        self._penalty_phase, "its R1 penalty", config.game.r1_every
      )
    self._evaluate = jax.jit(self._evaluate_phase)
    self._render = jax.jit(self._render_phase)

  def init_state(self, key: Key[Array, ""]) -> base.TrainState:
    """A fresh generator, its average, and what the config asks for."""
    net = base.new_net(self.generator, key, self._optimizers["generator"])
    nets = {"generator": net}
    if self.game is not None:
      nets["critic"] = self.game.new_net(prng.named(key, "critic"))
    if self.config.refinement.enabled:
      learnt = frame_corrections.tables(
        self.config.refinement, self.space.expression_size
      )
      state = self._optimizers["refinement"].init(learnt)
      nets["refinement"] = base.NetState(learnt, {}, state)
    return base.TrainState(jnp.int32(0), nets, {"generator": net.params})

  def init(self, key: Key[Array, ""]) -> base.TrainState:
    """As every stage's; then the published weights, where there are some."""
    state = super().init(key)
    if self._published is None:
      return state
    fields = precision.fields(self.config.dtype, self.config.remat)
    network, (params, _) = base.Network.of(self._published(), **fields)
    if network.graphdef != self.generator.graphdef:
      raise ValueError("the published generator is of another shape.")
    params["mapping"] = state.nets["generator"].params["mapping"]
    return base.begin_from(
      state,
      "generator",
      jax.device_put(params, self.shardings().nets["generator"].params),
    )

  def step(
    self,
    state: base.TrainState,
    batch: FaceBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[base.TrainState, base.Metrics]:
    """One step of the generator, and of whatever else is due.

    As in StyleGAN2, regularisers take steps of their own, now and then.
    """
    key = prng.at_step(key, index)
    played = self.config.game
    judged = self.game is not None and index >= played.start
    metrics = {}
    if self.config.weights.variation and not (
      index % self.config.variation_every
    ):
      state, found = self._vary(state, batch, prng.named(key, "variation"))
      metrics |= found
    if judged:
      state, found = self._judge(state, batch, prng.named(key, "judge"))
      metrics |= found
      if not (index - played.start) % played.r1_every:
        state, found = self._penalise(state, batch, key)
        metrics |= found
    train = self._train_judged if judged else self._train
    state, found = train(state, batch, key)
    return state, found | metrics

  def evaluate(
    self, state: base.TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> base.Metrics:
    """The same terms on held-out frames, by the averaged parameters."""
    return self._evaluate(state, self.frozen, batch, key)

  def preview(
    self, state: base.TrainState, batch: FaceBatch, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Rows: frame, face image, raw image, depth (near is bright)."""
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

  def _train_phase(self, state, frozen, batch, key, *, judged):
    given = {
      name: net.params for name, net in state.nets.items() if name != "critic"
    }

    def gradients(batch, key):
      def objective(params):
        out, terms = self._terms(params, state.nets, frozen, batch, key)
        if judged:
          terms["adversarial"] = adversarial.non_saturating(
            self._say(state, out, batch), real=True
          )
        return base.total(terms, self._weights)

      return jax.grad(objective, has_aux=True)(given)

    found, metrics = self._accumulated(gradients, batch, key)
    nets, told = base.update_all(state.nets, found, self._optimizers)
    return base.advance(state, nets, self.config.ema_decay), metrics | told

  def _accumulated(self, *given):
    return base.accumulate(*given, self.config.accumulate)

  def _say(self, state, out, batch):
    """What the judge says of what is rendered."""
    pair = gan.Pair(out.image, out.raw_image)
    return self.game.logits(
      state.nets["critic"], pair, batch.cameras, state.step
    )

  def _variation_phase(self, state, frozen, batch, key):
    """Smoothness of the density: a step of the generator alone."""
    del frozen
    net = state.nets["generator"]

    def gradients(batch, key):
      given, _ = frame_corrections.inputs(
        self.config.refinement, None, self.space, batch
      )

      def objective(params):
        model = self.generator.bind(params, net.buffers)
        mean = jnp.mean(density_regularization.variation(model, given, key))
        # Rare steps count for all those between.
        share = self.config.variation_every * self._weights["variation"]
        return share * mean, {"variation": mean}

      return jax.grad(objective, has_aux=True)(net.params)

    found, metrics = self._accumulated(gradients, batch, key)
    net, told = base.update(
      "generator.variation", net, found, self._optimizers["generator"]
    )
    nets = {**state.nets, "generator": net}
    return state._replace(nets=nets), metrics | told

  def _judge_phase(self, state, frozen, batch, key):
    """The judge learns from fresh fakes and the true frames."""
    del frozen
    params = {name: net.params for name, net in state.nets.items()}

    def gradients(batch, key):
      out, _ = self._generated(params, state.nets, batch, key)
      return self.game.judging(
        state.nets["critic"],
        gan.Pair(out.image, out.raw_image),
        self._real(batch),
        batch.cameras,
        state.step,
      )

    return self._judged("critic", state, gradients, batch, key)

  def _penalty_phase(self, state, frozen, batch, key):
    del frozen

    def gradients(batch, key):
      del key
      return self.game.penalty(
        state.nets["critic"], self._real(batch), batch.cameras, state.step
      )

    return self._judged("critic.r1", state, gradients, batch, key)

  def _judged(self, name, state, gradients, batch, key):
    found, metrics = self._accumulated(gradients, batch, key)
    net, told = self.game.update(name, state.nets["critic"], found)
    return state._replace(nets={**state.nets, "critic": net}), metrics | told

  def _real(self, batch):
    target = reconstruction.target(batch)
    size = self.config.model.feature_resolution
    return gan.Pair(target, images.shrink(target, size))

  def _evaluate_phase(self, state, frozen, batch, key):
    params = {"generator": state.ema["generator"]}
    out, terms = self._terms(
      params, state.nets, frozen, batch, key, train=False
    )
    metrics = base.total(terms, self._weights)[1]
    return {**metrics, "psnr": jnp.mean(conditioning.psnr(out.image, batch))}

  def _render_phase(self, state, batch):
    params = {"generator": state.ema["generator"]}
    return self._generated(params, state.nets, batch, None)[0]

  def _generated(self, params, nets, batch, key):
    """The generator on a batch; with a key as in training.

    Returns the output, and the corrections' term if there is one.
    """
    model = self.generator.bind(params["generator"], nets["generator"].buffers)
    given, terms = frame_corrections.inputs(
      self.config.refinement, params.get("refinement"), self.space, batch
    )
    model = precision.whole(self.config.remat, model)
    if key is None:
      return model(*given), terms
    noise = jax.random.normal(
      prng.named(key, "expression"), given.expression.shape
    )
    deviation = self.config.expression_noise / self.space.expression_scale
    given = given._replace(expression=given.expression + deviation * noise)
    return model(*given, key=prng.named(key, "render")), terms

  def _terms(self, params, nets, frozen, batch, key, train=True):
    """What is rendered of a batch, and how far it is from the frames."""
    out, terms = self._generated(params, nets, batch, key if train else None)
    lpips = self._lpips.bind(*frozen["lpips"])
    return out, terms | reconstruction.rendered(
      self.config, lpips, out, batch, key
    )
