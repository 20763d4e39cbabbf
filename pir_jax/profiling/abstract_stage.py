"""A stage as shapes, to be compiled: no data is read, no weights are fetched.

b batch, t frames, i identity and e expression coefficients.
"""

import dataclasses

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pir_jax.face import morphable
from pir_jax.models import triplane_generator, vgg, wav2vec2, whisper
from pir_jax.pretrained import zeros
from pir_jax.runs.experiment import Experiment, mesh_for
from pir_jax.runtime import memory
from pir_jax.stages import base, expression, inpainting, triplane
from pir_jax.types import (
  FRAME_RATE,
  SAMPLE_RATE,
  Cameras,
  ConfigError,
  ExpressionStats,
  FaceBatch,
  FaceSpace,
  SpeechBatch,
)


def make_stage(
  experiment: Experiment,
  renderer: triplane_generator.Config,
  mesh: Mesh,
  *,
  shapes_only: bool = False,
) -> base.Stage:
  """Builds the stage of an experiment around networks without weights.

  Frozen networks are zeros; a trained wav2vec 2.0 is only shapes, at the
  paper's size. So the stage can be lowered, but not run.

  Args:
    experiment: whose training step is compiled.
    renderer: the tri-plane generator that the inpainting stage renders with.
    mesh: its devices.
    shapes_only: frozen networks are only shapes, too: for absent devices.

  Raises:
    ValueError: sizes that do not fit each other.
  """
  config = experiment.stage
  blank = nnx.eval_shape if shapes_only else zeros.module
  options = dict(num_steps=experiment.loop.num_steps, mesh=mesh)
  size = morphable.NUM_EXPRESSION
  space = FaceSpace(
    morphable.NUM_IDENTITY,
    morphable.EXPRESSION_NAMES,
    np.zeros(size, np.float32),
    np.ones(size, np.float32),
  )
  if isinstance(config, expression.Config):
    lips = np.ones((size, 3), np.float32) if config.weights.lips else None
    return expression.Expression(
      config, space, _encoder(config, blank), lip_basis=lips, **options
    )
  perceptual = blank(lambda: _perceptual(config))
  side = experiment.data.resolution
  if isinstance(config, triplane.Config):
    if side != config.model.resolution:
      raise ConfigError(
        f"data.resolution={side} must be the network's own "
        f"resolution={config.model.resolution}."
      )
    return triplane.TriPlane(config, space, perceptual, **options)
  fitted = dataclasses.replace(
    renderer,
    identity_size=space.identity_size,
    expression_size=space.expression_size,
  )
  frozen = blank(
    lambda: triplane_generator.TriPlaneGenerator(fitted, rngs=nnx.Rngs(0))
  )
  return inpainting.Inpainting(
    config, space, perceptual, frozen, resolution=side, **options
  )


def _perceptual(
  config: triplane.Config | inpainting.Config,
) -> vgg.Features:
  options = dict(
    num_layers=config.perceptual_layers, quick=True, rngs=nnx.Rngs(0)
  )
  if isinstance(config, inpainting.Config) and config.vgg19:
    return vgg.Vgg19(**options)
  return vgg.Lpips("vgg", **options)


def _encoder(config: expression.Config, blank) -> nnx.Module:
  if config.encoder == "whisper":  # Frozen: the stage keeps its weights.
    options = whisper.Config(layer_index=config.layer_index or None)
    return blank(lambda: whisper.WhisperEncoder(options, rngs=nnx.Rngs(0)))
  options = wav2vec2.Config()
  return nnx.eval_shape(lambda: wav2vec2.Wav2Vec2(options, rngs=nnx.Rngs(0)))


def make_batch(
  experiment: Experiment, stage: base.Stage
) -> SpeechBatch | FaceBatch:
  """Returns shapes and shardings of a training batch."""
  data, split = experiment.data, PartitionSpec(("data", "fsdp"))
  sharding = NamedSharding(stage.mesh, split)

  def array(*shape: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
    shape = (data.batch_size, *shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  identity = array(stage.space.identity_size)
  num_expression = stage.space.expression_size
  if isinstance(experiment.stage, expression.Config):
    t = data.num_frames
    wide = t + 2 * experiment.stage.margin
    return SpeechBatch(
      array(wide * SAMPLE_RATE // FRAME_RATE),
      array(dtype=np.int32),
      array(dtype=np.int32),
      array(t, num_expression),
      array(t),
      identity,
      ExpressionStats(array(num_expression), array(num_expression)),
    )
  picture, plane = ((data.resolution, data.resolution, c) for c in (3, 1))
  return FaceBatch(
    array(*picture),
    *(array(*plane) for _ in ("mask", "head", "mouth", "eyes")),
    Cameras(array(4, 4), array(3, 3)),
    identity,
    array(num_expression),
    array(dtype=np.int32),
  )


def arguments(experiment: Experiment, stage: base.Stage) -> tuple:
  """Returns shapes of the state, the batch and the key of a step."""
  return (
    stage.abstract_state(),
    make_batch(experiment, stage),
    jax.eval_shape(lambda: jax.random.key(0)),
  )


def compile_steps(
  experiment: Experiment,
  renderer: triplane_generator.Config,
) -> tuple[base.Stage, list[memory.Footprint]]:
  """Compiles an experiment's training steps; returns stage and footprints.

  Args:
    experiment: whose training step is compiled.
    renderer: of the tri-plane that the inpainting stage uses.

  Raises:
    InputError: the sizes do not fit each other, or not the devices.
  """
  stage = make_stage(experiment, renderer, mesh_for(experiment))
  args = arguments(experiment, stage)
  lowered = [step.lower(*args) for step in stage.compiled]
  return stage, [memory.measure(step) for step in lowered]


def describe(
  experiment: Experiment,
  stage: base.Stage,
  footprints: list[memory.Footprint],
) -> str:
  """Formats the stage and its footprints as lines of text."""
  devices, batch = stage.mesh.devices, experiment.data.batch_size
  lines = [
    f"{stage.name}, a step of {batch} examples on {devices.size} x"
    f" {devices.flat[0].device_kind}:"
  ]
  nets = stage.abstract_state().nets
  trained = {name: net.params for name, net in nets.items()}
  frozen = {name: params for name, (params, _) in stage.frozen.items()}
  for kind, group in (("trained", trained), ("frozen", frozen)):
    for name, params in group.items():
      num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
      lines.append(f"{num_params / 1e6:.2f} M parameters, {kind}: {name}")
  for step, footprint in zip(stage.compiled, footprints, strict=True):
    lines += [f"{step.name}, on each device:", memory.describe(footprint)]
  return "\n".join(lines)
