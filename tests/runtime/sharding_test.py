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


def test_batches_are_split_over_all_devices():
  mesh = sharding.make_mesh(fsdp=2)
  batch = {"x": np.arange(16.0).reshape(16, 1)}
  placed = sharding.shard_batch(mesh, batch)["x"]
  assert placed.addressable_shards[0].data.shape == (2, 1)
  np.testing.assert_array_equal(placed, batch["x"])


def test_devices_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="fsdp=3 must divide"):
    sharding.make_mesh(fsdp=3)
