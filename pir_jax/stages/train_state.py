"""The training state of every stage, and one optimiser step of its networks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from pir_jax.runtime import optim

Metrics = dict[str, Float[Array, ""] | Int[Array, ""]]


class NetState(NamedTuple):
  """One trained network: plain pytrees."""

  params: PyTree
  buffers: PyTree
  opt_state: PyTree


class TrainState(NamedTuple):
  """All that a run must keep.

  Attributes:
    step: optimiser steps done.
    nets: by name.
    ema: averaged parameters of the networks that are used afterwards, by name.
  """

  step: Int[Array, ""]
  nets: dict[str, NetState]
  ema: dict[str, PyTree]


def new_net(
  params: PyTree, buffers: PyTree, optimizer: optax.GradientTransformation
) -> NetState:
  """Returns a network with a fresh optimiser state."""
  return NetState(params, buffers, optimizer.init(params))


def update(
  name: str,
  net: NetState,
  gradients: PyTree,
  optimizer: optax.GradientTransformation,
) -> tuple[NetState, Metrics]:
  """Takes one optimiser step of a network, unless a gradient is not finite.

  Args:
    name: of the network, in the metrics.
    net: before the step.
    gradients: like its parameters.
    optimizer: with which its state was made.

  Returns:
    (the network, `gradient_norm/name` and `bad/name`)
  """
  # One pass: a square that overflows is as bad as a NaN, for Adam squares too.
  squares = jnp.stack(
    [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
  )
  finite = jnp.isfinite(squares)
  all_finite = jnp.all(finite)
  updates, opt_state = optimizer.update(gradients, net.opt_state, net.params)
  # An elementwise choice, not a branch: the old memory is still donated.
  params, opt_state = jax.tree.map(
    lambda new, old: jnp.where(all_finite, new, old),
    (optax.apply_updates(net.params, updates), opt_state),
    (net.params, net.opt_state),
  )
  bad = jnp.where(all_finite, -1, jnp.argmin(finite)).astype(jnp.int32)
  return NetState(params, net.buffers, opt_state), {
    f"gradient_norm/{name}": jnp.sqrt(jnp.sum(squares)),
    f"bad/{name}": bad,
  }


def update_all(
  nets: dict[str, NetState],
  gradients: dict[str, PyTree],
  optimizers: dict[str, optax.GradientTransformation],
) -> tuple[dict[str, NetState], Metrics]:
  """Applies `update` to every network that has a gradient."""
  updated, metrics = {}, {}
  for name, gradient in gradients.items():
    updated[name], net_metrics = update(
      name, nets[name], gradient, optimizers[name]
    )
    metrics |= net_metrics
  return updated, metrics


def advance(
  state: TrainState, nets: dict[str, NetState], ema_decay: float
) -> TrainState:
  """Returns the next state: replaces networks by `nets`, updates averages."""
  nets = {**state.nets, **nets}
  ema = {
    name: optim.ema_update(
      average, nets[name].params, ema_decay, state.step.astype(jnp.float32)
    )
    for name, average in state.ema.items()
  }
  return TrainState(state.step + 1, nets, ema)


def start_from(state: TrainState, name: str, params: PyTree) -> TrainState:
  """Puts pretrained parameters into a fresh state and into its average."""
  net = state.nets[name]._replace(params=params)
  average = jax.tree.map(jnp.copy, params)  # A step donates its memory.
  return state._replace(
    nets={**state.nets, name: net}, ema={**state.ema, name: average}
  )


def total(
  terms: dict[str, Float[Array, "b"]], weights: dict[str, float]
) -> tuple[Float[Array, ""], Metrics]:
  """Computes the weighted sum of per-example terms, and their plain means.

  Raises:
    KeyError: a term has no weight.
  """
  means = {name: jnp.mean(term) for name, term in terms.items()}
  loss = sum(
    (weights[name] * mean for name, mean in means.items()), jnp.float32(0)
  )
  return loss, {**means, "loss": loss}
