"""Our networks and training steps beside PyTorch's, on this machine's cores.

Command: python -m experiments.peers [--topics=triplane,inpainting,expression]
  [--repeats=5] [--demo] [--nosteps]
Needs torch and transformers: pip install -e '.[peers]', or `make bench-peers`.
Random weights, float32, batches of one, both libraries with all cores of this
process, by turns, so that a busy spell hits both. What is printed is how many
times as fast ours is, compilation apart: seconds would not carry to another
machine. Time: half an hour at the paper's size, most of it the compilation of
training steps (ten minutes with --nosteps), three minutes with --demo.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from jax.sharding import Mesh

from experiments import expression as expression_file
from experiments import inpainting as inpainting_file
from experiments import triplane as triplane_file
from experiments.peers import eg3d, pix2pixhd, speech, steps
from pir_jax.models import inpainting, triplane_generator, wav2vec2
from pir_jax.profiling import abstract_stage, parts, stopwatch
from pir_jax.profiling import expression as expression_lib
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import compiler_options, loop, memory, sharding
from pir_jax.stages import base, expression
from pir_jax.stages import inpainting as inpainting_stage
from pir_jax.stages import triplane as triplane_stage
from pir_jax.types import SAMPLE_RATE

TOPICS = ("triplane", "inpainting", "expression")
_TOPICS = flags.DEFINE_list("topics", [*TOPICS], "What is timed.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "The median is printed.", 1)
_STEPS = flags.DEFINE_boolean("steps", True, "Times training steps as well.")
_DEMO = flags.DEFINE_boolean("demo", False, "At the sizes of `:demo`.")
_SECONDS = 10  # Of speech that is encoded.


class Pair(NamedTuple):
  """The same work twice; each call returns when it is done."""

  name: str
  ours: Callable[[], None]
  theirs: Callable[[], None]


def _experiment(topic: str) -> Experiment:
  """Returns the paper's sizes in float32, or the demo's; a batch of one."""
  if _DEMO.value:
    files = triplane_file, inpainting_file, expression_file
    made = files[TOPICS.index(topic)].get_config("scratch")
    data = dataclasses.replace(made.data, batch_size=1)
    return dataclasses.replace(made, data=data)
  stage = {
    "triplane": triplane_stage.Config,
    "inpainting": inpainting_stage.Config,
    "expression": expression.Config,
  }[topic]()
  data = Data(batch_size=1, resolution=512, num_frames=100)
  return Experiment(stage=stage, data=data, loop=loop.Config(num_steps=1000))


def _mesh() -> Mesh:
  return sharding.make_mesh(1, jax.devices()[:1])


def _compiled(function: Callable, *args) -> Callable[[], None]:
  """Compiles as frames and steps are; returns a call that waits."""
  options = compiler_options.usual()
  run = jax.jit(function, compiler_options=options).lower(*args).compile()
  return lambda: jax.block_until_ready(run(*args))


def _step(stage: base.Stage, state, batch) -> Callable[[], None]:
  """Returns a call of a stage's first phase that carries its state along."""
  carried, key = [state], jax.random.key(1)

  def run():
    state, metrics = stage.compiled[0](carried.pop(), batch, key)
    carried.append(jax.block_until_ready((state, metrics))[0])

  return run


def _images_step(experiment: Experiment, renderer) -> Callable[[], None]:
  stage = abstract_stage.make_stage(experiment, renderer, _mesh())
  batch = parts.blank_images(experiment, stage)
  return _step(stage, stage.init(jax.random.key(0)), batch)


def _without_gradient(function: Callable, *args) -> Callable[[], None]:
  def run():
    with torch.inference_mode():
      function(*args)

  return run


def _backward(network, function: Callable, *args) -> Callable[[], None]:
  def run():
    network.zero_grad()
    sum(x.square().mean() for x in function(*args)).backward()

  return run


def triplane_pairs(experiment: Experiment) -> Iterator[Pair]:
  """Yields stage 2's: a frame, its gradient, a generator step."""
  stage, data = experiment.stage, experiment.data
  config = stage.model
  network = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )
  params, buffers = parts.random_state(network)
  inputs = tuple(parts.conditions(config, 1).values())

  def images(params, buffers, *inputs):
    out = network.bind(params, buffers)(*inputs)
    return out.image, out.raw_image

  def loss(*args):
    return sum(jnp.mean(jnp.square(x)) for x in images(*args))

  peer = eg3d.Generator(config).eval()
  theirs = steps.conditions(config, 1)
  yield Pair(
    "tri-plane: frame",
    _compiled(images, params, buffers, *inputs),
    _without_gradient(peer, *theirs),
  )
  peer.train()
  yield Pair(
    "tri-plane: forward and backward",
    _compiled(jax.grad(loss), params, buffers, *inputs),
    _backward(peer, lambda *x: peer(*x)[1::2], *theirs),
  )
  del params, peer
  if not _STEPS.value:
    return
  yield Pair(
    "tri-plane: training step",
    _images_step(experiment, config),
    steps.of_triplane(stage, 1, data.resolution),
  )


def inpainting_pairs(experiment: Experiment) -> Iterator[Pair]:
  """Yields stage 3's: a frame, its gradient, a step of both networks."""
  stage, side = experiment.stage, experiment.data.resolution
  renderer = _experiment("triplane").stage.model
  config = dataclasses.replace(
    stage.model, feature_channels=renderer.plane_channels
  )
  network = base.Network(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )
  params, buffers = parts.random_state(network)
  small = renderer.feature_resolution
  shapes = (1, side, side, 3), (1, small, small, renderer.plane_channels)
  random = np.random.default_rng(0)
  inputs = [random.standard_normal(shape, np.float32) for shape in shapes]
  theirs = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in inputs]

  def image(params, buffers, *inputs):
    return network.bind(params, buffers)(*inputs).image

  def loss(*args):
    return jnp.mean(jnp.square(image(*args)))

  peer = pix2pixhd.Generator(config)
  yield Pair(
    "inpainting: frame",
    _compiled(image, params, buffers, *inputs),
    _without_gradient(peer, *theirs),
  )
  yield Pair(
    "inpainting: forward and backward",
    _compiled(jax.grad(loss), params, buffers, *inputs),
    _backward(peer, lambda *x: [peer(*x)], *theirs),
  )
  del params, peer
  if not _STEPS.value:
    return
  yield Pair(
    "inpainting: training step",
    _images_step(experiment, renderer),
    steps.of_inpainting(stage, renderer, 1, side),
  )


def expression_pairs(experiment: Experiment) -> Iterator[Pair]:
  """Yields wav2vec2-large forwards and backwards, and stage 1's step."""
  config = wav2vec2.Config()
  network = base.Network(lambda rngs: wav2vec2.Wav2Vec2(config, rngs=rngs))
  params, buffers = parts.random_state(network)
  # A network of depth 24 needs smaller weights than the others to stay finite.
  params = jax.tree.map(lambda x: 0.02 * x, params)
  random = np.random.default_rng(0)
  waveform = random.standard_normal((1, _SECONDS * SAMPLE_RATE), np.float32)

  def encode(params, buffers, waveform):
    return network.bind(params, buffers)(waveform)

  def loss(*args):
    return jnp.mean(jnp.square(encode(*args)))

  peer = speech.encoder(config).eval()
  theirs = torch.from_numpy(waveform)
  yield Pair(
    f"wav2vec2-large: {_SECONDS} s of speech",
    _compiled(encode, params, buffers, waveform),
    _without_gradient(peer, theirs),
  )
  yield Pair(
    "wav2vec2-large: forward and backward",
    _compiled(jax.grad(loss), params, buffers, waveform),
    _backward(peer, lambda x: [peer(x).last_hidden_state], theirs),
  )
  del params, peer
  if not _STEPS.value or experiment.stage.encoder != "wav2vec2":
    return  # The demo's encoder is frozen, and no peer is written of it.
  stage, state, batch = expression_lib.blank_step(experiment)
  decoder = dataclasses.replace(
    experiment.stage.model,
    audio_size=config.width,
    identity_size=stage.space.identity_size,
    expression_size=stage.space.expression_size,
  )
  num_frames = experiment.data.num_frames
  yield Pair(
    "expression: training step",
    _step(stage, state, batch),
    steps.of_expression(experiment.stage, config, decoder, 1, num_frames),
  )


def line(pair: Pair, repeats: int) -> str:
  """Times a pair by turns; returns its row."""
  ours, theirs = stopwatch.by_turns([pair.ours, pair.theirs], repeats)
  ratios = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
  return (
    f"{pair.name:40}{theirs.median / ours.median:9.2f}x"
    f"{min(ratios):10.2f} to {max(ratios):.2f}"
  )


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  unknown = [*argv[1:], *(set(_TOPICS.value) - set(TOPICS))]
  if unknown:
    raise app.UsageError(f"unknown {unknown[0]!r}: topics are {TOPICS}")
  memory.keep_pages()  # As our commands do; it helps PyTorch as well.
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  jax.config.update("jax_enable_compilation_cache", False)
  print(parts.title("peers", "float32", 1, _REPEATS.value))
  print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
  print(f"{'':40}{'ours is':>10}{'single turns':>18}", flush=True)
  pairs = {
    "triplane": triplane_pairs,
    "inpainting": inpainting_pairs,
    "expression": expression_pairs,
  }
  for topic in _TOPICS.value:
    for pair in pairs[topic](_experiment(topic)):
      print(line(pair, _REPEATS.value), flush=True)


if __name__ == "__main__":
  app.run(main)
