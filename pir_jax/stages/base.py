"""The one shape of a stage: where a model meets its losses.

A stage is made on the host (configs, shapes, frozen networks), then runs as
pure functions of a `TrainState`. A batch, a step and a key in; a state and a
dict of terms out: what is summed is what is logged. Besides its terms a step
tells of every network NET it updates:
  gradient_norm/NET: of the gradient, before any clipping.
  bad/NET: number of the first leaf of the gradient that is not finite, see
    `Stage.leaf_name`; -1 where all are. Such an update is left out.
A network's further phases have names of their own: NET.PHASE.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from pir_jax.runtime import checkpoint, optim, prng, sharding
from pir_jax.stages.accumulation import accumulate as accumulate

Metrics = dict[str, Float[Array, ""] | Int[Array, ""]]

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
  def of(
    cls, module: nnx.Module, **changes: Any
  ) -> tuple["Network", tuple[PyTree, PyTree]]:
    """The structure of a module that has its numbers, and the numbers.

    Args:
      module: with a `config`, where there are changes.
      **changes: of its config, which leave its numbers as they are.
    """
    graphdef, params, buffers = nnx.split(module, nnx.Param, ...)
    # Not the module itself, which would hold on to its numbers.
    kind, config = type(module), getattr(module, "config", None)
    if any(getattr(config, name) != value for name, value in changes.items()):
      config = dataclasses.replace(config, **changes)
      return cls(lambda rngs: kind(config, rngs=rngs)), (params, buffers)
    network = cls.__new__(cls)
    network._make = lambda rngs: kind(config, rngs=rngs)
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
    every: steps of a run from one to the next of this kind.
  """

  def __init__(self, name: str, jit: Callable, frozen: PyTree, every: int = 1):
    self.name = name
    self.every = every
    self._jit = jit
    self._frozen = frozen

  @functools.cached_property
  def _jitted(self) -> Callable:
    # Not before it is used: the stage may yet be told where its state lives.
    return self._jit()

  def __call__(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> tuple[TrainState, Metrics]:
    """One step; the old state's memory is reused."""
    return self._jitted(state, self._frozen, batch, key)

  def trace(self, state: Any, batch: Any, key: Any) -> jax.stages.Traced:
    """The step for arguments of which only shape and sharding are known."""
    return self._jitted.trace(state, self._frozen, batch, key)

  def lower(self, state: Any, batch: Any, key: Any) -> jax.stages.Lowered:
    """The same, one step nearer to the machine."""
    return self.trace(state, batch, key).lower()


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
    # Whole on every device: they are the smaller part of the memory (they have
    # no optimiser state), and would be gathered anew at every use.
    self.frozen = _placed(frozen, mesh)
    self._rules = sharding.Config()
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

  def split_by(self, rules: sharding.Config) -> None:
    """Tells which arrays of the state are split, before its first use."""
    self._rules = rules
    self._shardings = None

  def leaf_name(self, net: str, index: int) -> str:
    """The tensor that `bad/NET` of a step's metrics means."""
    abstract = jax.eval_shape(self.init_state, jax.random.key(0))
    return leaf_names(abstract.nets[net.partition(".")[0]].params)[index]

  def shardings(self) -> PyTree:
    """Where the state lives, by the rule over its abstract form."""
    if self._shardings is None:
      abstract = jax.eval_shape(self.init_state, jax.random.key(0))
      self._shardings = sharding.state_shardings(
        self.mesh, abstract, self._rules
      )
    return self._shardings

  def abstract_state(self) -> TrainState:
    """Shapes, dtypes and shardings of the state, for restoring."""
    return checkpoint.abstract(
      jax.eval_shape(self.init_state, jax.random.key(0)), self.shardings()
    )

  def compile_step(
    self, function: Callable, name: str = "a step", every: int = 1
  ) -> "CompiledStep":
    """The one place where training steps are jitted.

    Args:
      function: (state, frozen, batch, key) -> (state, metrics), pure.
      name: of what it does, where a stage has several.
      every: steps of a run from one to the next of this kind.

    Returns:
      (state, batch, key) -> (state, metrics); the old state's memory is reused.
      It is kept in `compiled` too.
    """

    def jit() -> Callable:
      return jax.jit(
        function,
        donate_argnums=0,
        out_shardings=(self.shardings(), sharding.replicated(self.mesh)),
      )

    self.compiled.append(CompiledStep(name, jit, self.frozen, every))
    return self.compiled[-1]


def _placed(frozen: PyTree, mesh: Mesh) -> PyTree:
  where = sharding.replicated(mesh)
  if not any(
    isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(frozen)
  ):
    return jax.device_put(frozen, where)
  # Networks of which only shapes are known, perhaps for devices that are not
  # here: to be compiled, not run.
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
    frozen,
  )


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


def leaf_names(tree: PyTree) -> list[str]:
  """Of a tree's leaves, in the order of `jax.tree.leaves`: layers/0/kernel."""
  return [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]


def update(
  name: str,
  net: NetState,
  gradients: PyTree,
  optimizer: optax.GradientTransformation,
) -> tuple[NetState, Metrics]:
  """One optimiser step of one network, left out if it would spoil it.

  Args:
    name: of the network, in the metrics.
    net: as it is.
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
  sound = jnp.all(finite)
  updates, opt_state = optimizer.update(gradients, net.opt_state, net.params)
  # A choice for each number, not a branch: the old memory is still given away.
  params, opt_state = jax.tree.map(
    lambda new, old: jnp.where(sound, new, old),
    (optax.apply_updates(net.params, updates), opt_state),
    (net.params, net.opt_state),
  )
  return NetState(params, net.buffers, opt_state), {
    f"gradient_norm/{name}": jnp.sqrt(jnp.sum(squares)),
    f"bad/{name}": jnp.where(sound, -1, jnp.argmin(finite)).astype(jnp.int32),
  }


def update_all(
  nets: dict[str, NetState],
  gradients: dict[str, PyTree],
  optimizers: dict[str, optax.GradientTransformation],
) -> tuple[dict[str, NetState], Metrics]:
  """`update` of every network that has a gradient."""
  updated, metrics = {}, {}
  for name, found in gradients.items():
    updated[name], told = update(name, nets[name], found, optimizers[name])
    metrics |= told
  return updated, metrics


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
