"""Parts of the inpainting stage: their work by hand and by XLA, their sum."""

import jax
import jax.numpy as jnp
import pytest

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


def _painter(**options):
  sizes = dict(channels=5, num_global_blocks=2, num_local_blocks=1)
  config = inpainting.Config(**(sizes | options))
  return inpainting_lib.fitting(config, _renderer())


def _count(config, side=SIDE):
  return inpainting_lib.nominal_gflop(config, side, _renderer())


def test_count_is_the_one_done_by_hand():
  found = _count(_painter())
  # Sides 32, 16, 8 and 4 of the frame, its half, and twice down again; widths
  # 5 at full size and 10, 20, 40 below, 44 with the feature image.
  for name, products in {
    "coarse: half size, 7x7": 256 * 49 * 3 * 10,
    "coarse: downsampling": 64 * 9 * 10 * 20 + 16 * 9 * 20 * 40,
    "coarse: blocks": 2 * 2 * 16 * 9 * 44 * 44,
    "coarse: upsampling": 16 * 9 * 44 * 20 + 64 * 9 * 20 * 10,
    "fine: 7x7": 1024 * 49 * 3 * 5,
    "fine: downsampling, sum": 256 * 9 * 5 * 10,
    "fine: blocks": 2 * 256 * 9 * 10 * 10,
    "fine: upsampling": 256 * 9 * 10 * 5,
    "fine: 7x7 to the image": 1024 * 49 * 5 * 3,
  }.items():
    assert found[name] * 1e9 / 2 == pytest.approx(products, abs=0.1), name
  wholes = found["whole generator"], found["feature image"]
  assert found["network frame"] == pytest.approx(sum(wholes))
  parts = [found[part.name] for part in inpainting_lib.parts()[:9]]
  assert wholes[0] == pytest.approx(sum(parts))


def test_the_paper_s_generator_takes_49_billion_products():
  config = inpainting_lib.fitting(
    inpainting.Config(), triplane_generator.Config()
  )
  assert _count(config, 512)["whole generator"] / 2 == pytest.approx(49.4, 1e-2)


def test_every_part_has_its_count_and_takes_what_is_there():
  parts = inpainting_lib.parts()
  assert [part.name for part in parts] == list(_count(_painter()))
  there = {"frame", "feature", *parts_lib.conditions(_renderer(), 1)}
  for part in parts:
    assert set(part.takes) <= there, part.name
    there.add(part.gives)


def test_count_is_near_what_xla_counts():
  # Wide enough that norms and activations, which are not nominal, are little;
  # only in float32 is anything done by tiles with fewer products.
  config = _painter(
    channels=32, num_downsamples=1, num_global_blocks=1, dtype="bfloat16"
  )
  network = base.Network(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  given = (
    jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
    jax.ShapeDtypeStruct((1, 16, 16, 4), jnp.float32),
  )
  costs = (
    jax.jit(lambda state, *given: network.bind(*state)(*given).image)
    .lower(shapes, *given)
    .cost_analysis()
  )
  counted = costs["flops"] / 1e9
  assert _count(config, 64)["whole generator"] == pytest.approx(counted, 0.1)


def test_the_parts_in_a_row_are_the_generator():
  config = _painter()
  network = base.Network(
    lambda rngs: inpainting.InpaintingGenerator(config, rngs=rngs)
  )

  @jax.jit
  def both(state, given):
    networks = inpainting_lib.Networks(network.bind(*state), None)
    results = dict(given)
    for part in inpainting_lib.parts():
      found = part.function(networks, *(results[name] for name in part.takes))
      results[part.gives or part.name] = found
      if part.name == inpainting_lib.PAINTING:
        return results["image"], found

  given = parts_lib.draw(
    {
      "frame": jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32),
      "feature": jax.ShapeDtypeStruct((2, 4, 4, 4), jnp.float32),
    }
  )
  state = jax.tree.map(lambda x: 0.1 * x, parts_lib.numbers(network))
  parts, whole = both(state, given)
  assert float(whole.std()) > 1e-2, "nothing is painted"
  # The same operations in the same order, compiled apart.
  assert float(abs(whole - parts).max()) < 1e-5
