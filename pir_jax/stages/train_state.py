"""The training state of every stage, and one optimiser step of its networks."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from pir_jax.runtime import optim
from pir_jax.types import AnyArray, InputError

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


def learnt(state: TrainState) -> dict[str, Array]:
  """Returns what all networks have learnt, averaged where there are averages.

  Named NET/params/layer/kernel and NET/buffers/layer/mean.
  """
  return {
    key: leaf
    for name, net in state.nets.items()
    for key, leaf in named(
      name, state.ema.get(name, net.params), net.buffers
    ).items()
  }


def named(
  net: str, params: PyTree, buffers: PyTree
) -> dict[str, Array | jax.ShapeDtypeStruct]:
  """Names the arrays of one network as `learnt` does."""
  leaves = jax.tree_util.tree_leaves_with_path(
    {"params": params, "buffers": buffers}
  )
  names = [
    # Flax has each array as the value of a variable.
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in leaves
  ]
  return {
    f"{net}/{name.removesuffix('/value')}": leaf
    for name, (_, leaf) in zip(names, leaves, strict=True)
  }


def begin_from(
  state: TrainState,
  arrays: Mapping[str, AnyArray],
  source: str,
  *,
  fresh: Collection[str] = (),
) -> TrainState:
  """Puts what another state has learnt into a fresh one and its averages.

  Args:
    state: fresh, or abstract (shapes and shardings).
    arrays: see `learnt`.
    source: what they were read from, for errors.
    fresh: beginnings of names that stay as they are. A network of which there
      is nothing in `arrays` stays so, too.

  Raises:
    InputError: some arrays are missing or are of another shape.
  """
  wrong = []

  def take(name: str, leaf):
    array = arrays.get(name)
    if name.startswith(tuple(fresh)):
      return leaf
    if array is None or array.shape != leaf.shape:
      there = "missing" if array is None else _size(array)
      wrong.append(f"{name} ({there} there, {_size(leaf)} here)")
      return leaf
    return jax.device_put(np.asarray(array, leaf.dtype), leaf.sharding)

  nets, ema = dict(state.nets), dict(state.ema)
  for name, net in state.nets.items():
    if not any(key.startswith(f"{name}/") for key in arrays):
      continue
    own = named(name, net.params, net.buffers)
    taken = {key: take(key, leaf) for key, leaf in own.items()}
    structure = jax.tree.structure(
      {"params": net.params, "buffers": net.buffers}
    )
    nets[name] = net._replace(
      **jax.tree.unflatten(structure, list(taken.values()))
    )
    if name in ema and not wrong:  # A copy: a step donates its memory.
      ema[name] = jax.tree.map(jnp.copy, nets[name].params)
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise InputError(
      f"{source} has networks of other shapes: {', '.join(wrong[:3])}{more}; "
      "take its sizes, or begin from another."
    )
  return state._replace(nets=nets, ema=ema)


def _size(array) -> str:
  return "x".join(map(str, array.shape)) or "one number"


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
