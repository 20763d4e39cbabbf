"""Tables move weights, and say all that does not fit at once."""

import jax
import numpy as np
import pytest
from flax import nnx

from pir_jax.pretrained import weight_map


class _Pair(nnx.Module):
  def __init__(self):
    self.layers = nnx.List(nnx.Linear(2, 3, rngs=nnx.Rngs(0)) for _ in "ab")


TABLE = [
  weight_map.Rule(r"fc(\d)\.weight", r"layers.\1.kernel", weight_map.linear),
  weight_map.Rule(r"fc(\d)\.bias", r"layers.\1.bias"),
  weight_map.Rule(r"again", "layers.0.bias"),
  weight_map.Rule(r"step", None),
]


def _state():
  weights = {f"fc{i}.weight": np.full((3, 2), i + 1.0) for i in range(2)}
  return weights | {f"fc{i}.bias": np.full(3, i - 1.0) for i in range(2)}


def test_values_arrive_in_our_layout():
  module, state = _Pair(), _state() | {"step": np.zeros(())}
  state["fc1.weight"] = np.arange(6.0).reshape(3, 2)
  weight_map.apply(TABLE, state, module)
  np.testing.assert_array_equal(
    module.layers[1].kernel[...], [[0, 2, 4], [1, 3, 5]]
  )
  np.testing.assert_array_equal(module.layers[0].bias[...], [-1, -1, -1])


def test_every_mismatch_is_named_and_nothing_is_written():
  module, state = _Pair(), _state()
  before = jax.tree.leaves(nnx.state(module))
  del state["fc0.weight"]
  state["fc1.weight"] = np.zeros((4, 2))
  state |= {"again": np.zeros(3), "extra": np.zeros(1), "fc7.bias": np.zeros(3)}
  with pytest.raises(ValueError) as error:
    weight_map.apply(TABLE, state, module)
  message = str(error.value)
  for words in (
    "5 mismatches",
    "nothing in the file gives layers.0.kernel",
    "fc1.weight gives layers.1.kernel (2, 4), not (2, 3)",
    "fc0.bias and again both give layers.0.bias",
    "no rule for extra",
    "fc7.bias goes to layers.7.bias, which does not exist",
  ):
    assert words in message
  for a, b in zip(before, jax.tree.leaves(nnx.state(module)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_paths_may_be_kept_as_made():
  module, state = _Pair(), _state()
  del state["fc0.bias"]
  weight_map.apply(TABLE, state, module, keep=[r"layers\.0\.bias"])
  np.testing.assert_array_equal(module.layers[0].bias[...], 0)
