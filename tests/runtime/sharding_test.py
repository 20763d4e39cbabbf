"""Placement over eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.runtime import sharding


def test_large_parameters_are_split_and_small_ones_are_not():
  mesh = sharding.make_mesh(fsdp=4)
  state = {
    "large": jax.ShapeDtypeStruct((512, 1024), jnp.float32),
    "small": jax.ShapeDtypeStruct((512,), jnp.float32),
    "odd": jax.ShapeDtypeStruct((511, 1021), jnp.float32),
  }
  rules = sharding.state_shardings(mesh, state)
  large = jax.device_put(jnp.zeros((512, 1024)), rules["large"])
  assert large.addressable_shards[0].data.shape == (512, 256)
  assert rules["small"].is_fully_replicated
  assert rules["odd"].is_fully_replicated


def test_the_first_rule_that_is_found_counts():
  config = sharding.Config(
    fsdp=2,
    min_size=8,
    rules=(("^ema/", "whole"), ("bias$", "-1"), ("", "largest")),
  )
  mesh = sharding.make_mesh(config)
  leaf = jax.ShapeDtypeStruct((4, 8), jnp.float32)
  few = jax.ShapeDtypeStruct((2,), jnp.float32)
  net = {"kernel": leaf, "bias": few}
  found = sharding.state_shardings(
    mesh, {"ema": net, "nets": net | {"scale": few}}, config
  )
  split = jax.tree.map(lambda s: tuple(s.spec), found)
  assert split == {
    "ema": {"kernel": (), "bias": ()},
    "nets": {"kernel": (None, "fsdp"), "bias": ("fsdp",), "scale": ()},
  }


@pytest.mark.parametrize(
  ("rule", "said"),
  [
    (("(", "whole"), "not a regular expression"),
    (("x", "most"), "must be 'largest', 'whole' or an axis"),
    (("x", "0"), r"axis 0 of x \(3, 8\) is not split over fsdp=2"),
    (("x", "2"), "axis 2 of x"),
  ],
)
def test_rules_that_cannot_be_kept_are_refused(rule, said):
  config = sharding.Config(fsdp=2, rules=(rule,))
  state = {"x": jax.ShapeDtypeStruct((3, 8), jnp.float32)}
  with pytest.raises(ValueError, match=said):
    sharding.state_shardings(sharding.make_mesh(config), state, config)


def test_bytes_are_those_that_a_device_holds():
  mesh = sharding.make_mesh(fsdp=4)
  state = {
    "large": jnp.zeros((512, 1024), jnp.float32),
    "small": jnp.zeros(3, jnp.bfloat16),
  }
  places = sharding.state_shardings(mesh, state)
  placed = jax.device_put(state, places)
  want = sum(
    leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed)
  )
  assert sharding.device_bytes(placed) == (want, 512 * 1024 * 4 + 6)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    places,
  )
  assert sharding.device_bytes(abstract) == sharding.device_bytes(placed)


def test_batches_are_split_over_all_devices():
  mesh = sharding.make_mesh(fsdp=2)
  batch = {"x": np.arange(16.0).reshape(16, 1)}
  placed = sharding.shard_batch(mesh, batch)["x"]
  assert placed.addressable_shards[0].data.shape == (2, 1)
  np.testing.assert_array_equal(placed, batch["x"])


def test_a_process_has_the_rows_of_its_devices():
  mesh = sharding.make_mesh(fsdp=2)
  assert sharding.local_rows(mesh, 16) == tuple(range(16))
  one = sharding.make_mesh(devices=jax.devices()[:1])
  assert sharding.local_rows(one, 3) == (0, 1, 2)
  with pytest.raises(ValueError, match="batch_size=12 must be a multiple"):
    sharding.local_rows(mesh, 12)


@pytest.mark.parametrize("size", [16, 3])
def test_whole_batches_are_placed_whatever_their_size(size):
  mesh = sharding.make_mesh(fsdp=2)
  batch = {"x": np.arange(float(size))}
  placed = sharding.place_whole(mesh, batch)["x"]
  np.testing.assert_array_equal(placed, batch["x"])
  assert placed.sharding.is_fully_replicated == (size == 3)
  assert len(placed.devices()) == 8


def test_draws_do_not_depend_on_the_devices():
  mesh = sharding.make_mesh(fsdp=2)
  split = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(("data", "fsdp"))
  )

  def draw(key):
    return jax.random.uniform(key, (16, 5))

  key = jax.random.key(3)
  np.testing.assert_array_equal(
    jax.jit(draw, out_shardings=split)(key), jax.jit(draw)(key)
  )


def test_devices_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="fsdp=3 must divide"):
    sharding.make_mesh(fsdp=3)
  with pytest.raises(ValueError, match="fsdp=0 must divide"):
    sharding.make_mesh(sharding.Config(fsdp=0))
