"""Stage 2: identity, expression and camera -> feature image and face image.

Trained on pairs: the frame is what the tri-plane should look like at the
frame's own coefficients and camera. The paper's losses are not known; these
(pixels and LPIPS over the head, black around it) are our choice.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.losses import pixel
from pir_jax.models import generator
from pir_jax.ops import images
from pir_jax.runtime import optim as optim_lib
from pir_jax.runtime import prng
from pir_jax.stages import base, faces
from pir_jax.types import FaceBatch, FaceSpace

EMPTY = -1.0  # What a ray that meets nothing renders.


@dataclasses.dataclass(kw_only=True, slots=True)
class Weights:
  """What each term counts for; the paper leaves all of them open.

  Attributes:
    image: L1 of the face image.
    raw_image: L1 of the first three feature channels.
    perceptual: LPIPS of a crop of the face image.
  """

  image: float = 1.0
  raw_image: float = 1.0
  perceptual: float = 1.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Stage 2; the defaults are the paper's sizes.

  Attributes:
    model: of the generator.
    optim: of the generator; the defaults are EG3D's.
    weights: of the losses.
    mouth_weight: pixels of the mouth count this much more.
    empty_weight: pixels off the head count this much, and should be empty.
    perceptual_size: side of the LPIPS crop in pixels; 0 takes all.
    perceptual_taps: leading VGG taps used; 5 is the published distance.
    expression_noise: added to the standardised expression in training,
      standard deviation: near expressions should look alike, and a short clip
      shows few.
    ema_decay: of the averaged parameters, which are the ones used.
  """

  model: generator.Config = dataclasses.field(default_factory=generator.Config)
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=0.0025, b1=0.0, b2=0.99, warmup_steps=100
    )
  )
  weights: Weights = dataclasses.field(default_factory=Weights)
  mouth_weight: float = 4.0
  empty_weight: float = 0.1
  perceptual_size: int = 0
  perceptual_taps: int = 5
  expression_noise: float = 0.0
  ema_decay: float = 0.999


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
  ):
    self.config = config
    self.space = space
    model = dataclasses.replace(
      config.model,
      identity_size=space.identity_size,
      expression_size=space.expression_size,
    )
    self.generator = base.Network(
      lambda rngs: generator.TriPlaneGenerator(model, rngs=rngs)
    )
    self._lpips, frozen = base.Network.of(lpips)
    super().__init__(mesh, {"lpips": frozen})
    self._optimizer = optim_lib.build(config.optim, num_steps)
    self._train = self.compile_step(self._train_phase)
    self._evaluate = jax.jit(self._evaluate_phase)
    self._render = jax.jit(self._render_phase)

  def init_state(self, key: Key[Array, ""]) -> base.TrainState:
    """A fresh generator and its average."""
    net = base.new_net(self.generator, key, self._optimizer)
    return base.TrainState(
      jnp.int32(0), {"generator": net}, {"generator": net.params}
    )

  def step(
    self,
    state: base.TrainState,
    batch: FaceBatch,
    key: Key[Array, ""],
    *,
    index: int,
  ) -> tuple[base.TrainState, base.Metrics]:
    """One step of the generator."""
    return self._train(state, batch, prng.at_step(key, index))

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
    size = batch.image.shape[1:3]
    near, far = jnp.min(out.depth), jnp.max(out.depth)
    depth = 1.0 - 2.0 * (out.depth[..., None] - near) / (far - near)
    rows = [
      jnp.asarray(batch.image),
      out.image,
      *(
        jax.image.resize(
          jnp.broadcast_to(x, (*x.shape[:3], 3)),
          (x.shape[0], *size, 3),
          "nearest",
        )
        for x in (out.raw_image, depth)
      ),
    ]
    return {"faces": images.grid(rows)}

  def _train_phase(self, state, frozen, batch, key):
    net = state.nets["generator"]

    def objective(params):
      return base.total(
        self._terms(params, net.buffers, frozen, batch, key, train=True),
        dataclasses.asdict(self.config.weights),
      )

    gradients, metrics = jax.grad(objective, has_aux=True)(net.params)
    net = base.update(net, gradients, self._optimizer)
    nets = {"generator": net}
    return base.advance(state, nets, self.config.ema_decay), metrics

  def _evaluate_phase(self, state, frozen, batch, key):
    params, buffers = state.ema["generator"], state.nets["generator"].buffers
    terms = self._terms(params, buffers, frozen, batch, key, train=False)
    return base.total(terms, dataclasses.asdict(self.config.weights))[1]

  def _render_phase(self, state, batch):
    model = self.generator.bind(
      state.ema["generator"], state.nets["generator"].buffers
    )
    return model(
      *faces.inputs(self.space, batch.identity, batch.expression, batch.cameras)
    )

  def _terms(
    self,
    params: PyTree,
    buffers: PyTree,
    frozen: PyTree,
    batch: FaceBatch,
    key: Key[Array, ""],
    train: bool,
  ) -> dict[str, Float[Array, "b"]]:
    model = self.generator.bind(params, buffers)
    given = faces.inputs(
      self.space, batch.identity, batch.expression, batch.cameras
    )
    render_key = None
    if train:
      render_key = prng.named(key, "render")
      noise = jax.random.normal(
        prng.named(key, "expression"), given.expression.shape
      )
      given = given._replace(
        expression=given.expression + self.config.expression_noise * noise
      )
    out = model(*given, key=render_key)
    target = batch.head * batch.image + (1.0 - batch.head) * EMPTY
    weight = (
      batch.head
      + (1.0 - batch.head) * self.config.empty_weight
      + batch.mouth * self.config.mouth_weight
    )
    size = out.raw_image.shape[1]
    raw_target = images.shrink(target, size)
    raw_weight = images.shrink(weight, size)
    # Equal outside the head, so that only the head is compared.
    shown = batch.head * out.image + (1.0 - batch.head) * batch.image
    return {
      "image": pixel.weighted_l1(out.image, target, weight),
      "raw_image": pixel.weighted_l1(out.raw_image, raw_target, raw_weight),
      "perceptual": faces.perceptual(
        self._lpips.bind(*frozen["lpips"]),
        shown,
        batch.image,
        self.config.perceptual_size,
        prng.named(key, "crop"),
      ),
    }
