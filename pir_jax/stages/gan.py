"""The optional game of stage 2: a dual discriminator judges pairs of images.

The recipe is EG3D's; that there is a game at all is a choice, for the paper
says nothing of it.
b batch, h side of the image, r side of the raw image.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from pir_jax.geometry import cameras as camera_geometry
from pir_jax.losses import adversarial
from pir_jax.models import dual_discriminator
from pir_jax.ops import filters
from pir_jax.runtime import optim as optim_lib
from pir_jax.stages import base, precision
from pir_jax.types import Cameras


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """The game; the defaults are EG3D's, but for `start`.

  Attributes:
    model: of the discriminator; its label is the camera. Its resolution is
      taken from the generator.
    optim: of the discriminator.
    start: steps before it: a face that is not there yet needs no judge.
    r1: gamma of the penalty on the judge's gradient at real images.
    r1_every: steps between penalties.
    blur: deviation, in pixels of the image, of the blur over all that the judge
      sees, when it starts.
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
  """What is judged together."""

  image: Float[Array, "b h h 3"]
  raw_image: Float[Array, "b r r 3"]


class Game:
  """The judge: its network, its steps, what it says."""

  def __init__(
    self,
    config: Config,
    *,
    resolution: int,
    num_steps: int,
    dtype: str = "float32",
    remat: str = "none",
  ):
    self.config = config
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

  def new_net(self, key: Key[Array, ""]) -> base.NetState:
    """A fresh judge with its optimiser."""
    return base.new_net(self.network, key, self._optimizer)

  def logits(
    self,
    net: base.NetState,
    pair: Pair,
    cameras: Cameras,
    step: Int[Array, ""],
    *,
    params: PyTree | None = None,
  ) -> Float[Array, "b"]:
    """What the judge says of images behind the fading blur.

    Args:
      net: the judge.
      pair: what it judges.
      cameras: its label.
      step: of the run, for the blur.
      params: instead of the net's own, to be differentiated by.
    """
    past = (step - self.config.start) / max(self.config.blur_steps, 1)
    sigma = self.config.blur * jnp.clip(1.0 - past, 0.0, 1.0)
    model = self.network.bind(
      net.params if params is None else params, net.buffers
    )
    return model(
      filters.gaussian_blur(pair.image, sigma),
      filters.gaussian_blur(pair.raw_image, sigma),
      camera_geometry.to_vector(cameras),
    )

  def judging(
    self,
    net: base.NetState,
    fake: Pair,
    real: Pair,
    cameras: Cameras,
    step: Int[Array, ""],
  ) -> tuple[PyTree, base.Metrics]:
    """Gradient and terms of the judge, non-saturating."""

    def objective(params):
      def say(pair, real):
        logits = self.logits(net, pair, cameras, step, params=params)
        return jnp.mean(adversarial.non_saturating(logits, real=real))

      terms = {
        "critic_fake": say(fake, real=False),
        "critic_real": say(real, real=True),
      }
      return sum(terms.values()), terms

    return jax.grad(objective, has_aux=True)(net.params)

  def penalty(
    self,
    net: base.NetState,
    real: Pair,
    cameras: Cameras,
    step: Int[Array, ""],
  ) -> tuple[PyTree, base.Metrics]:
    """Gradient and term of R1 alone: the judge should be flat at true frames.

    A step on it counts for all the steps between two of its kind.
    """

    def objective(params):
      penalty = adversarial.r1_penalty(
        lambda pair: self.logits(net, pair, cameras, step, params=params), real
      )
      mean = jnp.mean(penalty)
      share = 0.5 * self.config.r1 * self.config.r1_every
      return share * mean, {"r1": mean}

    return jax.grad(objective, has_aux=True)(net.params)

  def update(
    self, name: str, net: base.NetState, gradients: PyTree
  ) -> tuple[base.NetState, base.Metrics]:
    """A step of the judge; see `base.update`."""
    return base.update(name, net, gradients, self._optimizer)
