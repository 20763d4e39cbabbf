"""Optimisers as configs: Adam with warm-up, decay and clipping, and an EMA."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from pir_jax import ranges


@ranges.declare(
  learning_rate=ranges.POSITIVE,
  b1=ranges.DECAY,
  b2=ranges.DECAY,
  eps=ranges.POSITIVE,
  decay_start=ranges.SHARE,
  final_scale=ranges.SHARE,
)
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Adam.

  Attributes:
    learning_rate: after warm-up.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    warmup_steps: linear from zero.
    decay_start: share of the run after which the rate falls linearly to
      `final_scale`; 1 keeps it constant.
    final_scale: the last rate, as a share of `learning_rate`.
    clip_norm: the global gradient norm is cut to this; 0 does not.
  """

  learning_rate: float = 1e-4
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  warmup_steps: int = 0
  decay_start: float = 1.0
  final_scale: float = 0.0
  clip_norm: float = 0.0


def schedule(config: Config, num_steps: int) -> optax.Schedule:
  """Returns the learning rate at each step of a run of `num_steps`."""
  begin = int(config.decay_start * num_steps)

  def rate(step):
    warm = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
    past = jnp.clip((step - begin) / max(num_steps - begin, 1), 0.0, 1.0)
    return (
      config.learning_rate * warm * (1.0 - (1.0 - config.final_scale) * past)
    )

  return rate


def build(config: Config, num_steps: int) -> optax.GradientTransformation:
  """Builds the optax chain for `config`."""
  adam = optax.adam(
    schedule(config, num_steps), b1=config.b1, b2=config.b2, eps=config.eps
  )
  if config.clip_norm:
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)
  return adam


def with_lazy_steps(config: Config, every: int) -> Config:
  """Returns Adam for a network that takes an extra step every few steps.

  StyleGAN2's correction: k steps and one of the regulariser should move the
  averages of Adam, and the parameters, as far as k steps would.
  """
  share = every / (every + 1)
  return dataclasses.replace(
    config,
    learning_rate=share * config.learning_rate,
    b1=config.b1**share,
    b2=config.b2**share,
    warmup_steps=round(config.warmup_steps / share),
  )


def build_lazy(
  config: Config, num_steps: int, every: int
) -> optax.GradientTransformation:
  """Builds Adam for a network with extra steps every few steps (0: never)."""
  if not every:
    return build(config, num_steps)
  # The schedule counts the extra steps, too.
  total = round(num_steps * (1 + 1 / every))
  return build(with_lazy_steps(config, every), total)


def ema_update(
  ema: PyTree,
  params: PyTree,
  decay: float,
  step: Float[Array, ""] | int | Array,
) -> PyTree:
  """Updates an exponential moving average, which forgets its start faster.

  The decay is min(decay, (1 + step) / (10 + step)), so that a short run's
  average is not its initialisation.
  """
  rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda a, p: a + (1.0 - rate) * (p - a), ema, params)
