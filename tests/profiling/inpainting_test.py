"""The parts of inpainting: each has its inputs, together they are it."""

import jax
import jax.numpy as jnp

from pir_jax.models import inpainting, renderer, triplane_generator
from pir_jax.profiling import inpainting as inpainting_lib
from pir_jax.profiling import parts as parts_lib
from pir_jax.stages import base

SIDE = 32


def _renderer():
  return triplane_generator.Config(
    identity_size=5,
    expression_size=4,
    w_size=8,
    channel_base=64,
    channel_max=8,
    plane_resolution=16,
    plane_channels=4,
    feature_resolution=4,
    resolution=SIDE,
    sr_channels=(4, 4),
    renderer=renderer.Config(num_coarse=4, num_fine=4, hidden_size=8),
  )


def _config():
  config = inpainting.Config(
    channels=5, num_global_blocks=2, num_local_blocks=1
  )
  return inpainting_lib.matched_config(config, _renderer())


def test_every_part_takes_what_is_there():
  there = {"frame", "feature", *parts_lib.conditions(_renderer(), 1)}
  for part in inpainting_lib.parts():
    assert set(part.inputs) <= there, part.name
    there.add(part.output)


def test_the_parts_in_a_row_are_the_generator():
  config = _config()
  network = base.Network(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )

  @jax.jit
  def both(state, images):
    networks = inpainting_lib.Networks(network.bind(*state), None)
    results = dict(images)
    for part in inpainting_lib.parts():
      output = part.function(networks, *(results[name] for name in part.inputs))
      results[part.output or part.name] = output
      if part.name == inpainting_lib.GENERATOR:
        return results["image"], output

  images = parts_lib.random_arrays(
    {
      "frame": jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32),
      "feature": jax.ShapeDtypeStruct((2, 4, 4, 4), jnp.float32),
    }
  )
  state = jax.tree.map(lambda x: 0.1 * x, parts_lib.random_state(network))
  parts, whole = both(state, images)
  assert float(whole.std()) > 1e-2, "the image is flat"
  # The same operations in the same order, compiled apart.
  assert float(abs(whole - parts).max()) < 1e-5
