"""The one shape of a stage: where a model meets its losses.

A stage is made on the host (configs, shapes, frozen networks), then runs as
pure functions of a `TrainState`. A batch, a step and a key in; a state and a
dict of terms out: what is summed is what is logged.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from pir_jax.runtime import checkpoint, optim, prng, sharding

Metrics = dict[str, Float[Array, ""]]


_QUICK = {"xla_backend_optimization_level": 0}


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


class Network:
  """A module's structure, apart from its numbers.

  Built abstractly: no parameter is allocated until `init`.
  """

  def __init__(self, make: Callable[[nnx.Rngs], nnx.Module]):
    self._make = make
    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    self.graphdef, params, buffers = nnx.split(module, nnx.Param, ...)
    self.num_params = sum(leaf.size for leaf in jax.tree.leaves(params))

  @classmethod
  def of(cls, module: nnx.Module) -> tuple["Network", tuple[PyTree, PyTree]]:
    """The structure of a module that has its numbers, and the numbers."""
    graphdef, params, buffers = nnx.split(module, nnx.Param, ...)
    network = cls.__new__(cls)
    network.graphdef = graphdef
    network.num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    return network, (params, buffers)

  def init(self, key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
    """Fresh (params, buffers) as pure dicts."""
    _, params, buffers = nnx.split(self._make(nnx.Rngs(key)), nnx.Param, ...)
    return params, buffers

  def bind(self, params: PyTree, buffers: PyTree) -> Any:
    """The module around these numbers; safe under `grad` and `jit`."""
    return nnx.merge(self.graphdef, params, buffers, copy=True)


class CompiledStep:
  """A jitted training step around the frozen networks it uses.

  Attributes:
    name: of what it does.
  """

  def __init__(self, name: str, jitted: Callable, frozen: PyTree):
    self.name = name
    self._jitted = jitted
    self._frozen = frozen

  def __call__(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> tuple[TrainState, Metrics]:
    """One step; the old state's memory is reused."""
    return self._jitted(state, self._frozen, batch, key)

  def lower(self, state: Any, batch: Any, key: Any) -> jax.stages.Lowered:
    """The step for arguments of which only shape and sharding are known."""
    return self._jitted.lower(state, self._frozen, batch, key)


class Stage(abc.ABC):
  """What the loop needs of a stage.

  Attributes:
    name: as in run directories.
    mesh: where the arrays live.
    frozen: pytree of networks that this stage uses but does not train; an
      argument of the compiled steps, so that they hold no constants.
    compiled: the training steps, which can be lowered without being run.
  """

  name: str
  mesh: Mesh
  frozen: PyTree

  def __init__(self, mesh: Mesh, frozen: PyTree):
    self.mesh = mesh
    self.frozen = jax.device_put(frozen, sharding.replicated(mesh))
    self.compiled: list[CompiledStep] = []
    self._shardings: PyTree | None = None

  @abc.abstractmethod
  def init_state(self, key: Key[Array, ""]) -> TrainState:
    """A fresh state; pure."""

  @abc.abstractmethod
  def step(
    self, state: TrainState, batch: Any, key: Key[Array, ""], *, index: int
  ) -> tuple[TrainState, Metrics]:
    """One step; picks its compiled phases by `index` in Python."""

  @abc.abstractmethod
  def evaluate(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> Metrics:
    """Terms on held-out examples, averaged over the batch."""

  def preview(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Pictures to look at, in [-1, 1]; none by default."""
    del state, batch, key
    return {}

  def init(self, key: Key[Array, ""]) -> TrainState:
    """A fresh state, made where it will live."""
    make = jax.jit(
      lambda key: jax.tree.map(_strong, self.init_state(key)),
      out_shardings=self.shardings(),
      # Runs once: the many random draws compile far longer than they run.
      compiler_options=_QUICK if _on_cpu(self.mesh) else None,
    )
    return make(prng.named(key, "init"))

  def shardings(self) -> PyTree:
    """Where the state lives, by the rule over its abstract form."""
    if self._shardings is None:
      abstract = jax.eval_shape(self.init_state, jax.random.key(0))
      self._shardings = sharding.state_shardings(self.mesh, abstract)
    return self._shardings

  def abstract_state(self) -> TrainState:
    """Shapes, dtypes and shardings of the state, for restoring."""
    return checkpoint.abstract(
      jax.eval_shape(self.init_state, jax.random.key(0)), self.shardings()
    )

  def compile_step(
    self, function: Callable, name: str = "a step"
  ) -> "CompiledStep":
    """The one place where training steps are jitted.

    Args:
      function: (state, frozen, batch, key) -> (state, metrics), pure.
      name: of what it does, where a stage has several.

    Returns:
      (state, batch, key) -> (state, metrics); the old state's memory is reused.
      It is kept in `compiled` too.
    """
    jitted = jax.jit(
      function,
      donate_argnums=0,
      out_shardings=(self.shardings(), sharding.replicated(self.mesh)),
    )
    self.compiled.append(CompiledStep(name, jitted, self.frozen))
    return self.compiled[-1]


def _strong(x: Array) -> Array:
  # A weakly typed array would make the first steps compile again and again.
  return jax.lax.convert_element_type(x, x.dtype)


def _on_cpu(mesh: Mesh) -> bool:
  return mesh.devices.flat[0].platform == "cpu"


def new_net(
  network: Network, key: Key[Array, ""], optimizer: optax.GradientTransformation
) -> NetState:
  """A fresh network with its optimiser."""
  params, buffers = network.init(key)
  return NetState(params, buffers, optimizer.init(params))


def update(
  net: NetState, gradients: PyTree, optimizer: optax.GradientTransformation
) -> NetState:
  """One optimiser step of one network."""
  updates, opt_state = optimizer.update(gradients, net.opt_state, net.params)
  return NetState(
    optax.apply_updates(net.params, updates), net.buffers, opt_state
  )


def advance(
  state: TrainState, nets: dict[str, NetState], ema_decay: float
) -> TrainState:
  """The next state: `nets` replaces what it names, averages follow."""
  nets = {**state.nets, **nets}
  ema = {
    name: optim.ema_update(
      average, nets[name].params, ema_decay, state.step.astype(jnp.float32)
    )
    for name, average in state.ema.items()
  }
  return TrainState(state.step + 1, nets, ema)


def begin_from(state: TrainState, name: str, params: PyTree) -> TrainState:
  """A fresh state whose network `name`, and its average, are given ones."""
  net = state.nets[name]._replace(params=params)
  average = jax.tree.map(jnp.copy, params)  # A step gives away its memory.
  return state._replace(
    nets={**state.nets, name: net}, ema={**state.ema, name: average}
  )


def total(
  terms: dict[str, Float[Array, "b"]], weights: dict[str, float]
) -> tuple[Float[Array, ""], Metrics]:
  """The weighted sum of per-example terms, and their unweighted means.

  Raises:
    KeyError: a term has no weight.
  """
  means = {name: jnp.mean(term) for name, term in terms.items()}
  loss = sum(
    (weights[name] * mean for name, mean in means.items()), jnp.float32(0)
  )
  return loss, {**means, "loss": loss}
