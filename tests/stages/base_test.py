"""What all stages share: finite updates, batches in parts, donated memory.

b batch, d inputs.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from pir_jax.runtime import prng, sharding
from pir_jax.stages import accumulation, base, precision, train_state

KEY = jax.random.key(0)
ADAM = optax.adam(0.1)


class Fit(base.Stage):
  """Least squares, as small as a stage can be."""

  name = "fit"

  def __init__(self, mesh, num_parts=1):
    super().__init__(mesh, {})
    self.network = base.Network(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    self._num_parts = num_parts
    self._train = self.compile_step(self._train_phase)

  def init_state(self, key):
    return train_state.TrainState(
      jnp.int32(0),
      {"line": train_state.new_net(*self.network.init(key), ADAM)},
      {},
    )

  def step(self, state, batch, key, *, index):
    return self._train(state, batch, prng.at_step(key, index))

  def evaluate(self, state, batch, key):
    return {}

  def _train_phase(self, state, frozen, batch, key):
    net = state.nets["line"]

    def objective(params, batch, key):
      x, y = batch
      error = self.network.bind(params, net.buffers)(x) - y
      return train_state.total({"error": jnp.mean(error**2, 1)}, {"error": 1.0})

    gradients, metrics = accumulation.accumulate_grad(
      objective, net.params, batch, key, self._num_parts
    )
    nets, net_metrics = train_state.update_all(
      state.nets, {"line": gradients}, {"line": ADAM}
    )
    return train_state.advance(state, nets, 0.0), metrics | net_metrics


@functools.cache  # A stage holds no state: one compilation serves many tests.
def make_stage(num_parts=1):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return Fit(mesh, num_parts)


def make_batch(num_rows=8):
  rng = np.random.default_rng(0)
  x, y = (rng.normal(size=(num_rows, n)).astype(np.float32) for n in (3, 2))
  return jnp.asarray(x), jnp.asarray(y)


def arrays(tree):
  return [np.array(x) for x in jax.tree.leaves(tree)]


def test_leaves_are_named_in_the_order_they_have():
  tree = {"layers": [{"kernel": 1, "bias": 2}], "a": 3}
  assert base.leaf_names(tree) == ["a", "layers/0/bias", "layers/0/kernel"]
  assert [tree["a"], 2, 1] == jax.tree.leaves(tree)


def test_the_norm_reported_is_that_of_the_gradient_before_clipping():
  params = {"a": jnp.zeros(2), "b": jnp.zeros((1, 2))}
  clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
  net = train_state.NetState(params, {}, clipped.init(params))
  gradients = {"a": jnp.float32([1, 2]), "b": jnp.float32([[4, 10]])}
  net, metrics = train_state.update("net", net, gradients, clipped)
  assert metrics["bad/net"] == -1
  assert metrics["bad/net"].dtype == jnp.int32
  np.testing.assert_allclose(metrics["gradient_norm/net"], 11.0, rtol=1e-6)
  np.testing.assert_allclose(
    np.hypot(*(np.linalg.norm(x) for x in arrays(net.params))), 1.0, rtol=1e-6
  )


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_an_update_that_would_spoil_a_network_is_left_out(poison):
  stage = make_stage()
  state, (x, y) = stage.init(KEY), make_batch()
  state, _ = stage.step(state, (x, y), KEY, index=0)
  before = arrays(state.nets)
  # 1e30 is finite, but its square is not.
  state, metrics = stage.step(state, (x.at[1, 2].set(poison), y), KEY, index=1)
  chex.assert_trees_all_equal(before, arrays(state.nets))
  name = stage.leaf_name("line", int(metrics["bad/line"]))
  assert name.startswith(("bias", "kernel"))
  assert not np.isfinite(metrics["gradient_norm/line"])
  # And the next one is made as ever.
  state, metrics = stage.step(state, (x, y), KEY, index=2)
  assert metrics["bad/line"] == -1
  chex.assert_tree_all_finite((state.nets, state.ema))
  assert any(
    (a != b).any() for a, b in zip(before, arrays(state.nets), strict=True)
  )


def test_a_phase_of_a_network_names_the_networks_tensors():
  stage = make_stage()
  for index in range(2):
    assert stage.leaf_name("line.extra", index) == stage.leaf_name(
      "line", index
    )


def test_a_batch_in_parts_is_the_whole_batch():
  states = []
  for stage in (make_stage(), make_stage(4)):
    state, metrics = stage.step(stage.init(KEY), make_batch(), KEY, index=0)
    states.append((arrays(state), float(metrics["error"])))
  (first, error), (second, other) = states
  # The order of float32 sums.
  np.testing.assert_allclose(other, error, rtol=1e-6)
  chex.assert_trees_all_close(second, first, rtol=1e-4, atol=1e-6)


def test_parts_are_the_rows_of_equal_remainder_each_with_a_key():
  rows = jnp.arange(6.0)

  def seen(rows, key):
    return {
      "sum": jnp.sum(rows),
      "first": rows[0],
      "draw": jax.random.bits(key) / 1.0,
    }

  got = accumulation.accumulate(seen, rows, KEY, 3)
  assert got["sum"] == 15 / 3 and got["first"] == (0 + 1 + 2) / 3
  draws = [jax.random.bits(key) / 1.0 for key in jax.random.split(KEY, 3)]
  np.testing.assert_allclose(got["draw"], np.mean(draws), rtol=1e-6)
  # A single part is the batch itself under the key itself.
  got = accumulation.accumulate(seen, rows, KEY, 1)
  assert got["draw"] == jax.random.bits(KEY)


@pytest.mark.parametrize("num_parts", [0, 3, 16])
def test_a_batch_that_has_no_such_parts_is_refused(num_parts):
  with pytest.raises(
    ValueError, match=f"accumulate={num_parts} must divide the batch of 8"
  ):
    accumulation.accumulate(
      lambda batch, key: batch, jnp.zeros(8), KEY, num_parts
    )


def test_parts_stay_on_the_devices_that_have_them():
  mesh = sharding.make_mesh()
  stage = Fit(mesh, num_parts=2)
  split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split),
    make_batch(16),
  )
  text = (
    stage.compiled[0].lower(stage.abstract_state(), batch, KEY).compile()
  ).as_text()
  # Sums over the devices are all that is exchanged.
  assert "all-reduce" in text
  assert not re.search("all-gather|all-to-all|collective-permute", text)


def test_a_step_takes_the_memory_of_the_state_it_is_given():
  stage = make_stage()
  state, batch = stage.init(KEY), make_batch()
  sizes = stage.compiled[0].lower(state, batch, KEY).compile().memory_analysis()
  assert sizes.alias_size_in_bytes >= sum(
    x.nbytes for x in jax.tree.leaves(state)
  )
  stage.step(state, batch, KEY, index=0)
  assert all(x.is_deleted() for x in jax.tree.leaves(state))


def test_unknown_precision_and_recomputation_are_refused():
  with pytest.raises(ValueError, match="dtype='float16' must be one of"):
    precision.fields("float16", "none")
  with pytest.raises(ValueError, match="remat='some' must be one of"):
    precision.fields("float32", "some")


def test_a_step_compiled_ahead_compiles_nothing():
  stage = make_stage.__wrapped__()
  state = stage.init(KEY)
  batch = sharding.shard_batch(
    stage.mesh, jax.tree.map(np.asarray, make_batch())
  )
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    batch,
  )
  stage.compile_ahead(stage.abstract_state(), abstract, KEY)
  stage.compiled[0]._ahead.result()
  events = []
  record = lambda name, seconds, **_: events.append(name)  # noqa: E731
  jax.monitoring.register_event_duration_secs_listener(record)
  try:
    state, _ = stage._train(state, batch, KEY)
  finally:
    jax.monitoring.unregister_event_duration_listener(record)
  assert int(state.step) == 1
  assert not [name for name in events if "compile" in name]
