"""The interface of a stage: where a model meets its losses.

A stage is made on the host (configs, shapes, frozen networks), then runs as
pure functions of a `TrainState`. A step takes a state, a batch and a key and
returns a state and a dict of terms: what is summed is what is logged. A step
also returns, for every network NET it updates:
  gradient_norm/NET: of the gradient, before any clipping.
  bad/NET: index of the first leaf of the gradient that is not finite, see
    `Stage.leaf_name`; -1 where all are. Such an update is left out.
A network's further phases have names of their own: NET.PHASE.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from pir_jax.runtime import checkpoint, compiler_options, prng, sharding
from pir_jax.stages.train_state import Metrics, TrainState


class Network:
  """A module's structure, without its parameters.

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
    """Splits a module into its structure and its (params, buffers).

    Args:
      module: with a `config`, where there are changes.
      **changes: fields of its config that do not change its parameters.
    """
    graphdef, params, buffers = nnx.split(module, nnx.Param, ...)
    # Not the module itself, which would keep its parameters alive.
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
    """Initialises (params, buffers) as pure dicts."""
    _, params, buffers = nnx.split(self._make(nnx.Rngs(key)), nnx.Param, ...)
    return params, buffers

  def bind(self, params: PyTree, buffers: PyTree) -> Any:
    """Builds the module with these arrays; safe under `grad` and `jit`."""
    return nnx.merge(self.graphdef, params, buffers, copy=True)


class CompiledStep:
  """A jitted training step around the frozen networks it uses.

  Attributes:
    name: of the phase.
    every: steps of a run between two of this phase.
  """

  def __init__(self, name: str, jit: Callable, frozen: PyTree, every: int = 1):
    self.name = name
    self.every = every
    self._jit = jit
    self._frozen = frozen
    self._ahead: futures.Future | None = None

  @functools.cached_property
  def _jitted(self) -> Callable:
    # Not before its first use: the sharding rules may still be set.
    return self._jit()

  def __call__(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> tuple[TrainState, Metrics]:
    """Takes one step; the old state's memory is donated."""
    if self._ahead is not None:
      self._ahead.result()
      self._ahead = None
    return self._jitted(state, self._frozen, batch, key)

  def trace(self, state: Any, batch: Any, key: Any) -> jax.stages.Traced:
    """Traces the step for abstract arguments: shapes and shardings."""
    return self._jitted.trace(state, self._frozen, batch, key)

  def lower(self, state: Any, batch: Any, key: Any) -> jax.stages.Lowered:
    """Lowers the step for abstract arguments."""
    return self.trace(state, batch, key).lower()

  def compile_ahead(
    self, pool: futures.Executor, state: Any, batch: Any, key: Any
  ) -> None:
    """Compiles the step for abstract arguments, beside whatever comes next."""
    traced = self.trace(state, batch, key)  # Python's part gains no time there.
    self._ahead = pool.submit(lambda: traced.lower().compile())


class Stage(abc.ABC):
  """What the training loop needs of a stage.

  Attributes:
    name: as in run directories.
    mesh: where the arrays live.
    frozen: pytree of networks that this stage uses but does not train; an
      argument of the compiled steps, so that they hold no constants.
    compiled: the phases of a training step, which can be lowered without
      being run.
    begin: puts what a run begins from into a fresh state; None for nothing.
  """

  name: str
  mesh: Mesh
  frozen: PyTree

  def __init__(self, mesh: Mesh, frozen: PyTree):
    self.mesh = mesh
    # Replicated: they are the smaller part of the memory (they have no
    # optimiser state), and would be gathered anew at every use.
    self.frozen = _replicate(frozen, mesh)
    self._rules = sharding.Config()
    self.compiled: list[CompiledStep] = []
    self._shardings: PyTree | None = None
    self._init: Callable | None = None
    self.begin: Callable[[TrainState], TrainState] | None = None

  @abc.abstractmethod
  def init_state(self, key: Key[Array, ""]) -> TrainState:
    """Returns a fresh state; pure."""

  @abc.abstractmethod
  def step(
    self, state: TrainState, batch: Any, key: Key[Array, ""], *, index: int
  ) -> tuple[TrainState, Metrics]:
    """Takes one step; picks its compiled phases by `index` in Python."""

  @abc.abstractmethod
  def evaluate(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> Metrics:
    """Computes the terms on held-out examples, averaged over the batch."""

  def preview(
    self, state: TrainState, batch: Any, key: Key[Array, ""]
  ) -> dict[str, Float[Array, "h w 3"]]:
    """Returns images to look at, in [-1, 1]; none by default."""
    del state, batch, key
    return {}

  def init(self, key: Key[Array, ""]) -> TrainState:
    """Returns the state that a run begins with, made with its shardings."""
    state = self.fresh(key)
    return state if self.begin is None else self.begin(state)

  def fresh(self, key: Key[Array, ""]) -> TrainState:
    """Returns a state that has learnt nothing yet."""
    if self._init is None:
      self._init = jax.jit(
        lambda key: jax.tree.map(_strong, self.init_state(key)),
        out_shardings=self.shardings(),
        compiler_options=compiler_options.quick_to_compile(self.mesh),
      )
    return self._init(prng.named(key, "init"))

  def split_by(self, rules: sharding.Config) -> None:
    """Sets which arrays of the state are split, before its first use."""
    self._rules = rules
    self._shardings = self._init = None

  def leaf_name(self, net: str, index: int) -> str:
    """Returns the name of the tensor that `bad/NET` of the metrics indexes."""
    abstract = jax.eval_shape(self.init_state, jax.random.key(0))
    return leaf_names(abstract.nets[net.partition(".")[0]].params)[index]

  def shardings(self) -> PyTree:
    """Returns the shardings of the state, by the rules over its shapes."""
    if self._shardings is None:
      abstract = jax.eval_shape(self.init_state, jax.random.key(0))
      self._shardings = sharding.state_shardings(
        self.mesh, abstract, self._rules
      )
    return self._shardings

  def abstract_state(self) -> TrainState:
    """Returns shapes, dtypes and shardings of the state, for restoring."""
    return checkpoint.abstract(
      jax.eval_shape(self.init_state, jax.random.key(0)), self.shardings()
    )

  def compile_rarely_run(self, function: Callable) -> Callable:
    """Jits what runs so rarely that quick compilation counts for more."""
    options = compiler_options.quick_to_compile(self.mesh)
    return jax.jit(function, compiler_options=options)

  def jit(self, function: Callable, **options) -> Callable:
    """Jits what makes a result for the user, with further options of `jit`."""
    return jax.jit(
      function, compiler_options=compiler_options.usual(self.mesh), **options
    )

  def compile_step(
    self, function: Callable, name: str = "train step", every: int = 1
  ) -> "CompiledStep":
    """Jits a phase of the training step; the one place that does.

    Args:
      function: (state, frozen, batch, key) -> (state, metrics), pure.
      name: of the phase, where a stage has several.
      every: steps of a run between two of this phase.

    Returns:
      (state, batch, key) -> (state, metrics); the old state's memory is
      donated. It is added to `compiled`.
    """

    def phase(state, frozen, batch, key):
      if compiler_options.on_cpu(self.mesh):
        key = prng.cheap_to_compile(key)
      return function(state, frozen, batch, key)

    def jit() -> Callable:
      return jax.jit(
        phase,
        donate_argnums=0,
        out_shardings=(self.shardings(), sharding.replicated(self.mesh)),
        compiler_options=compiler_options.usual(self.mesh),
      )

    self.compiled.append(CompiledStep(name, jit, self.frozen, every))
    return self.compiled[-1]

  def compile_ahead(self, state: Any, batch: Any, key: Any) -> None:
    """Compiles all phases for abstract arguments, at the same time.

    Returns at once; a phase's first step waits for it.
    """
    pool = futures.ThreadPoolExecutor(max_workers=len(self.compiled) or 1)
    for step in self.compiled:
      step.compile_ahead(pool, state, batch, key)
    pool.shutdown(wait=False)


def _replicate(frozen: PyTree, mesh: Mesh) -> PyTree:
  where = sharding.replicated(mesh)
  if not any(
    isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(frozen)
  ):
    return jax.device_put(frozen, where)
  # Abstract networks, perhaps for devices that this machine lacks: to be
  # compiled, not run.
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
    frozen,
  )


def _strong(x: Array) -> Array:
  # A weakly typed array would make the first steps compile again and again.
  return jax.lax.convert_element_type(x, x.dtype)


def leaf_names(tree: PyTree) -> list[str]:
  """Returns names such as layers/0/kernel, in the order of `tree.leaves`."""
  return [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]
