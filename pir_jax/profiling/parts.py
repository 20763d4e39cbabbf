"""What a benchmark times: the parts of a frame's way, a program each.

The ways themselves are in `workload_triplane` and `workload_inpainting`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from pir_jax.geometry import cameras
from pir_jax.models import triplane_generator
from pir_jax.profiling import abstract_stage, stopwatch
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import sharding
from pir_jax.stages import base
from pir_jax.types import Cameras, InputError

GRADIENT = "forward and backward"
STEP = "training step"


class Part(NamedTuple):
  """A piece of the way to a frame.

  Attributes:
    name: as printed.
    function: (network, *what it takes) -> what it gives.
    takes: names of earlier parts' results or of what is given.
    gives: the name of its result; "" where no later part takes it.
  """

  name: str
  function: Callable[..., Any]
  takes: tuple[str, ...]
  gives: str = ""


class Row(NamedTuple):
  """What was measured of one part.

  Attributes:
    name: of the part.
    timing: of its repeats.
    program: that was timed.
    gflop: nominal, of the whole batch; None where none are counted.
  """

  name: str
  timing: stopwatch.Timing
  program: stopwatch.Program
  gflop: float | None


def frontal(num_batch: int) -> Cameras:
  """Cameras in front of the head, a view of 2 atan(1/6) wide."""
  angle, distance = jnp.zeros(num_batch), jnp.full(num_batch, 2.7)
  intrinsics = jnp.array([[3.0, 0, 0.5], [0, 3.0, 0.5], [0, 0, 1]])
  return Cameras(
    cameras.orbit(angle, angle, distance),
    jnp.broadcast_to(intrinsics, (num_batch, 3, 3)),
  )


def conditions(
  config: triplane_generator.Config, num_batch: int
) -> dict[str, Float[Array, "b _"]]:
  """What a tri-plane takes: coefficients of the mean face, and cameras."""
  return {
    "identity": jnp.zeros((num_batch, config.identity_size)),
    "face": jnp.zeros((num_batch, config.expression_size)),
    "view": cameras.to_vector(frontal(num_batch)),
  }


def draw(shapes: PyTree) -> PyTree:
  """Arrays without meaning, from a normal distribution.

  Drawn on the host: a network's own beginning takes as long to compile as all
  else, and no program here is faster or slower for it.
  """
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32), x.dtype),
    shapes,
  )


def numbers(network: base.Network) -> tuple[PyTree, PyTree]:
  """Parameters and buffers without meaning."""
  return draw(jax.eval_shape(network.init, jax.random.key(0)))


def declare(make: Callable[[nnx.Rngs], nnx.Module]) -> base.Network:
  """A network's structure; InputError where no network has such sizes."""
  try:
    return base.Network(make)
  except ValueError as error:
    raise InputError(f"{error}") from error


def walk(
  parts: list[Part],
  bind: Callable[[PyTree], Any],
  state: PyTree,
  results: dict[str, Any],
  gflop: dict[str, float],
  repeats: int,
) -> Iterator[Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    parts: in the order of the way.
    bind: numbers -> the network that the parts take.
    state: its numbers.
    results: what is given, by name; what the parts give is added.
    gflop: of each part and a whole batch, by name.
    repeats: of each part.
  """
  for part in parts:
    given = [results[name] for name in part.takes]

    def function(state, *given, part=part):
      return part.function(bind(state), *given)

    row, result = measured(part.name, function, (state, *given), repeats)
    yield row._replace(gflop=gflop[part.name] or None)
    if part.gives:
      results[part.gives] = result


def measured(
  name: str, function: Callable[..., Any], given: tuple[Any, ...], repeats: int
) -> tuple[Row, Any]:
  """A row without its nominal work, and the function's result."""
  program = stopwatch.build(jax.jit(function).lower(*given))
  timing, result = stopwatch.clock(lambda _: program.run(*given), None, repeats)
  return Row(name, timing, program, None), result


def step(
  experiment: Experiment, renderer: triplane_generator.Config, repeats: int
) -> Row:
  """The stage's own step, losses and optimiser included, on empty pictures.

  Its first phase: what a config asks for now and then besides is left out.

  Args:
    experiment: of a picture stage; its batch size is meant.
    renderer: the tri-plane of the inpainting stage.
    repeats: that are timed.

  Raises:
    InputError: sizes that do not fit each other.
  """
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  try:
    stage = abstract_stage.make_stage(experiment, renderer, mesh)
  except ValueError as error:
    raise InputError(f"{error}") from error
  batch = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    abstract_stage.make_batch(experiment, stage),
  )
  # A camera of zeros has no ray.
  view = frontal(experiment.data.batch_size)
  batch = batch._replace(
    cameras=jax.tree.map(
      lambda x, like: jax.device_put(x, like.sharding), view, batch.cameras
    )
  )
  compiled = stage.compiled[0]
  key = jax.random.key(1)
  state = stage.init(jax.random.key(0))
  program = stopwatch.build(compiled.lower(state, batch, key))
  timing, _ = stopwatch.clock(
    lambda carried: program.run(carried[0], stage.frozen, batch, key),
    (state, {}),
    repeats,
  )
  return Row(STEP, timing, program, None)
