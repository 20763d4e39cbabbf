"""The nominal count against one done by hand, and against XLA's own."""

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


def _products(config):
  """Products, not operations, of each part."""
  gflop = triplane.nominal_gflop(config)
  return {name: value * 1e9 / 2 for name, value in gflop.items()}


def test_count_is_the_one_done_by_hand():
  found = _products(_config())
  mapping = 9 * 10 + 10 * 10
  # Sides 4, 8 and 16 have 12, 12 and 8 channels; three planes of 4 channels.
  planes = 16 * (9 * 12 * 12 + 12 * 12) + 10 * (12 + 12)
  planes += 9 * 16 * 12 * 12 + 64 * (9 * 12 * 12 + 12 * 12) + 10 * 36
  planes += 9 * 64 * 12 * 8 + 256 * (9 * 8 * 8 + 8 * 12) + 10 * (12 + 2 * 8)
  # 6 and 3 samples of 64 rays, 12 corners, 11 hidden, a density and 4 colours.
  render = 64 * 9 * (12 * 4 + 4 * 11 + 11 * 5) + 64 * 9 * 4
  upsampler = 9 * 64 * 4 * 7 + 256 * (9 * 7 * 7 + 7 * 3) + 10 * (4 + 7 + 7)
  upsampler += 9 * 256 * 7 * 5 + 1024 * (9 * 5 * 5 + 5 * 3) + 10 * (7 + 5 + 5)
  for name, products in {
    "mapping": mapping,
    "planes": planes,
    "plane lookup, coarse": 64 * 6 * 12 * 4,
    "decoder, coarse": 64 * 6 * (4 * 11 + 11 * 5),
    "importance sampling": 0,
    "lookup and decoder, fine": 64 * 3 * (12 * 4 + 4 * 11 + 11 * 5),
    "merge and compositing": 64 * 9 * 4,
    triplane.RENDERER: render,
    "upsampler": upsampler,
    triplane.FEATURES: mapping + planes + render,
    triplane.FRAME: mapping + planes + render + upsampler,
  }.items():
    assert found[name] == pytest.approx(products, abs=0.1), name


@pytest.mark.parametrize("num_fine", [3, 0])
def test_every_part_has_its_count_and_takes_what_is_there(num_fine):
  options = renderer.Config(num_coarse=6, num_fine=num_fine)
  config = _config(renderer=options)
  parts = triplane.parts(config)
  assert [part.name for part in parts] == list(triplane.nominal_gflop(config))
  there = set(parts_lib.conditions(config, 2))
  for part in parts:
    assert set(part.takes) <= there, part.name
    there.add(part.gives)


def test_count_is_near_what_xla_counts():
  # Wide enough that low-passes, activations and softplus, which are not
  # nominal, are little; below 64 channels of the upsampler nothing is done by
  # tiles with fewer products.
  config = _config(
    w_size=32,
    channel_base=2048,
    channel_max=96,
    plane_resolution=32,
    plane_channels=8,
    resolution=64,
    feature_resolution=16,
    sr_channels=(60, 56),
  )
  network = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )
  key = jax.random.key(0)
  numbers = jax.eval_shape(network.init, key)
  results = dict(jax.eval_shape(lambda: parts_lib.conditions(config, 1)))
  nominal = triplane.nominal_gflop(config)
  checked = {"planes", "upsampler", triplane.FRAME}
  for part in triplane.parts(config):
    given = [results[name] for name in part.takes]

    def function(numbers, *given, part=part):
      return part.function(network.bind(*numbers), *given)

    if part.gives:
      results[part.gives] = jax.eval_shape(function, numbers, *given)
    if part.name in checked:
      costs = jax.jit(function).lower(numbers, *given).cost_analysis()
      counted = costs["flops"] / 1e9
      assert nominal[part.name] == pytest.approx(counted, rel=0.15), part.name
      checked.remove(part.name)
  assert not checked


def test_the_parts_in_a_row_are_the_renderer():
  config = _config()
  network = base.Network(
    lambda rngs: triplane_generator.TriPlaneGenerator(config, rngs=rngs)
  )

  @jax.jit
  def both(numbers):
    model = network.bind(*numbers)
    results = parts_lib.conditions(config, 2)
    for part in triplane.parts(config):
      found = part.function(model, *(results[name] for name in part.takes))
      results[part.gives or part.name] = found
      if part.name == triplane.RENDERER:
        return results["merge and compositing"].feature, found.feature

  parts, whole = both(parts_lib.numbers(network))
  assert float(whole.std()) > 1e-3, "nothing is seen"
  # Colours in [0, 1] there, in [-1, 1] here; float32 in another order.
  assert float(abs(whole.reshape(parts.shape) - (2 * parts - 1)).max()) < 1e-5
