"""The parts of the tri-plane: each has its inputs, together they are it."""

import jax
import pytest

from pir_jax.models import renderer, triplane_generator
from pir_jax.profiling import parts as parts_lib
from pir_jax.profiling import triplane
from pir_jax.stages import base


def _config(**options):
  return triplane_generator.Config(
    **{
      "identity_size": 5,
      "expression_size": 4,
      "w_size": 10,
      "channel_base": 128,
      "channel_max": 12,
      "plane_resolution": 16,
      "plane_channels": 4,
      "feature_resolution": 8,
      "resolution": 32,
      "sr_channels": (7, 5),
      "renderer": renderer.Config(num_coarse=6, num_fine=3, hidden_size=11),
    }
    | options
  )


@pytest.mark.parametrize("num_fine", [3, 0])
def test_every_part_takes_what_is_there(num_fine):
  options = renderer.Config(num_coarse=6, num_fine=num_fine)
  config = _config(renderer=options)
  there = set(parts_lib.conditions(config, 2))
  for part in triplane.parts(config):
    assert set(part.inputs) <= there, part.name
    there.add(part.output)


def test_the_parts_in_a_row_are_the_renderer():
  config = _config()
  network = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )

  @jax.jit
  def both(state):
    model = network.bind(*state)
    results = parts_lib.conditions(config, 2)
    for part in triplane.parts(config):
      output = part.function(model, *(results[name] for name in part.inputs))
      results[part.output or part.name] = output
      if part.name == triplane.RENDERER:
        return results["merge and compositing"].feature, output.feature

  parts, whole = both(parts_lib.random_state(network))
  assert float(whole.std()) > 1e-3, "the image is flat"
  # Colours in [0, 1] there, in [-1, 1] here; float32 in another order.
  assert float(abs(whole.reshape(parts.shape) - (2 * parts - 1)).max()) < 1e-5
