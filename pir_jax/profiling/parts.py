"""Measures a network part by part, and prints the table of a benchmark.

Every part of a frame's way is a program of its own; `profiling.triplane` and
`profiling.inpainting` list them.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pir_jax.geometry import cameras
from pir_jax.models import triplane_generator
from pir_jax.profiling import abstract_stage, stopwatch
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import compiler_options, memory, sharding
from pir_jax.stages import base, expression, triplane
from pir_jax.types import Cameras, FaceBatch

GRADIENT = "forward and backward"
STEP = "training step"
_NAMES = 33  # Width of the first column.
# The other headings, and how wide their columns are.
_COLUMNS = (
  ("median ms", 12),
  ("least ms", 11),
  ("GFLOP", 12),
  ("GFLOP/s", 10),
  ("peak memory", 13),
  ("compile s", 11),
)
_SHARE = ("% of peak", 11)
_SIDE = 2048  # Of the matrices that tell a CPU's peak.
_NOTES = """\
GFLOP: matrix products and convolutions of the traced program, two for a product
and its sum, loops multiplied; of convolutions by tiles, what the tiles take.
Memory: arguments, outputs, temporaries.
"""


def sized(
  experiment: Experiment,
  renderer: triplane.Config,
  batch: int,
  dtype: str | None,
) -> Experiment:
  """Returns a stage at these sizes, of images at the tri-plane's."""
  data: dict[str, Any] = {"batch_size": batch}
  if not isinstance(experiment.stage, expression.Config):
    data["resolution"] = renderer.model.resolution
  return dataclasses.replace(
    experiment,
    stage=typed(experiment.stage, dtype),
    data=dataclasses.replace(experiment.data, **data),
  )


def typed(stage: Any, dtype: str | None) -> Any:
  """Returns a stage's config with another dtype; None keeps its own."""
  dtype = dtype or stage.dtype
  model = dataclasses.replace(stage.model, dtype=dtype)
  return dataclasses.replace(stage, model=model, dtype=dtype)


class Part(NamedTuple):
  """A piece of the way to a frame.

  Attributes:
    name: as printed.
    function: (network, *inputs) -> output.
    inputs: names of earlier parts' outputs or of the first inputs.
    output: its name; "" where no later part needs it.
  """

  name: str
  function: Callable[..., Any]
  inputs: tuple[str, ...]
  output: str = ""


class Row(NamedTuple):
  """A measured part.

  Attributes:
    name: of the part.
    timing: of its repeats.
    program: what was timed, for the whole batch.
  """

  name: str
  timing: stopwatch.Timing
  program: stopwatch.Program


def frontal_cameras(num_batch: int) -> Cameras:
  """Returns cameras in front of the head, a view of 2 atan(1/6) wide."""
  angle, distance = jnp.zeros(num_batch), jnp.full(num_batch, 2.7)
  intrinsics = jnp.array([[3.0, 0, 0.5], [0, 3.0, 0.5], [0, 0, 1]])
  return Cameras(
    cameras.orbit(angle, angle, distance),
    jnp.broadcast_to(intrinsics, (num_batch, 3, 3)),
  )


def conditions(
  config: triplane_generator.Config, num_batch: int
) -> dict[str, Float[Array, "b _"]]:
  """Returns a tri-plane's inputs: coefficients of the mean face, cameras."""
  return {
    "identity": jnp.zeros((num_batch, config.identity_size)),
    "expression": jnp.zeros((num_batch, config.expression_size)),
    "camera": cameras.to_vector(frontal_cameras(num_batch)),
  }


def random_arrays(shapes: PyTree) -> PyTree:
  """Samples arrays of these shapes from a normal distribution.

  On the host: a network's own initialization takes as long to compile as all
  else, and no program here is faster or slower for it.
  """
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32), x.dtype),
    shapes,
  )


def random_state(network: base.Network) -> tuple[PyTree, PyTree]:
  """Samples a network's parameters and buffers."""
  return random_arrays(jax.eval_shape(network.init, jax.random.key(0)))


def measure_parts(
  parts: list[Part],
  bind: Callable[[PyTree], Any],
  state: PyTree,
  results: dict[str, Any],
  repeats: int,
) -> Iterator[Row]:
  """Compiles and times each part in turn, on the first device.

  Args:
    parts: in the order of the way.
    bind: state -> the network that the parts take.
    state: its parameters and buffers.
    results: the first inputs, by name; the outputs of the parts are added.
    repeats: of each part.
  """
  for part in parts:
    inputs = [results[name] for name in part.inputs]

    def function(state, *inputs, part=part):
      return part.function(bind(state), *inputs)

    row, result = measure(part.name, function, (state, *inputs), repeats)
    yield row
    if part.output:
      results[part.output] = result


def measure(
  name: str, function: Callable[..., Any], args: tuple[Any, ...], repeats: int
) -> tuple[Row, Any]:
  """Compiles and times a function; returns its row and its result."""
  program = stopwatch.build(
    jax.jit(function, compiler_options=compiler_options.usual()).trace(*args)
  )
  timing, result = stopwatch.clock(lambda _: program.run(*args), None, repeats)
  return Row(name, timing, program), result


def measure_step(
  experiment: Experiment, renderer: triplane_generator.Config, repeats: int
) -> Row:
  """Times the stage's own step, losses and optimizer included, on blank images.

  Only its first phase: what a config adds now and then is left out.

  Args:
    experiment: of an image stage, with its batch size.
    renderer: the tri-plane of the inpainting stage.
    repeats: how often the step is timed.

  Raises:
    InputError: sizes that do not fit each other.
  """
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  stage = abstract_stage.make_stage(experiment, renderer, mesh)
  batch = blank_images(experiment, stage)
  return time_step(stage, stage.init(jax.random.key(0)), batch, repeats)


def blank_images(experiment: Experiment, stage: base.Stage) -> FaceBatch:
  """Makes a batch of blank images in front of the head."""
  batch = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding),
    abstract_stage.make_batch(experiment, stage),
  )
  # A camera of zeros has no ray.
  view = frontal_cameras(experiment.data.batch_size)
  return batch._replace(
    cameras=jax.tree.map(
      lambda x, like: jax.device_put(x, like.sharding), view, batch.cameras
    )
  )


def time_step(stage: base.Stage, state: Any, batch: Any, repeats: int) -> Row:
  """Times the first phase of a stage's step.

  Args:
    stage: on one device.
    state: of it; its memory is donated.
    batch: of it.
    repeats: how often the step is timed.
  """
  compiled = stage.compiled[0]
  key = jax.random.key(1)
  program = stopwatch.build(compiled.trace(state, batch, key))
  timing, _ = stopwatch.clock(
    lambda carried: program.run(carried[0], stage.frozen, batch, key),
    (state, {}),
    repeats,
  )
  return Row(STEP, timing, program)


def cpu_tflops(repeats: int = 9) -> float | None:
  """Times a product of two large matrices; None where no CPU computes."""
  if not compiler_options.on_cpu():
    return None
  a = jnp.ones((_SIDE, _SIDE))
  row, _ = measure("product", jnp.matmul, (a, a), repeats)
  return 2 * _SIDE**3 / row.timing.median / 1e12


def title(topic: str, dtype: str, num_batch: int, repeats: int) -> str:
  """Returns the line that names network, device and settings."""
  device = jax.devices()[0]
  cores = os.cpu_count()
  usable = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
  )
  return (
    f"{topic} on {device.device_kind} ({device.platform}), {usable} of "
    f"{cores} CPU cores, jax {jax.__version__}, {dtype}, batch of "
    f"{num_batch}, {repeats} repeats"
  )


def header(peak_tflops: float | None) -> str:
  """Returns the headings, after the device's peak where it is known."""
  columns = [*_COLUMNS, _SHARE] if peak_tflops else _COLUMNS
  names = " " * _NAMES + "".join(f"{name:>{size}}" for name, size in columns)
  if not peak_tflops:
    return names
  return f"peak: {1e3 * peak_tflops:.0f} GFLOP/s\n{names}"


def line(row: Row, peak_tflops: float | None) -> str:
  """Formats a row under the headings."""
  timing, footprint = row.timing, row.program.footprint
  gflop = row.program.flops / 1e9
  speed = gflop / timing.median if gflop else None
  cells = [
    f"{1e3 * timing.median:.2f}",
    f"{1e3 * timing.least:.2f}",
    f"{gflop:.4g}" if gflop else "-",
    f"{speed:.4g}" if speed else "-",
    memory.readable(footprint.peak),
    f"{footprint.seconds:.1f}",
  ]
  text = "".join(
    f"{cell:>{size}}" for cell, (_, size) in zip(cells, _COLUMNS, strict=True)
  )
  if peak_tflops:
    share = f"{speed / peak_tflops / 10:.2f}" if speed else "-"
    text += f"{share:>{_SHARE[1]}}"
  return f"{row.name:{_NAMES}}{text}"


def notes(seconds: dict[str, float]) -> str:
  """Returns what the columns mean, images a second, and the device's memory.

  Args:
    seconds: an image, by the name of its row.
  """
  lines = [
    f"{name}: {1 / duration:.3g} images a second"
    for name, duration in seconds.items()
  ]
  statistics = jax.devices()[0].memory_stats() or {}  # A CPU keeps none.
  if "peak_bytes_in_use" in statistics:
    most = memory.readable(statistics["peak_bytes_in_use"])
    lines += [f"{most} of the device's memory in use at the most, by any row"]
  return _NOTES + "\n".join(lines)
