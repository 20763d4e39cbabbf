"""Published files become arrays, and never anything else.

The files torch_* in tests/goldens were written by PyTorch 2.13 and hold whole
numbers that count up, so what they say is known without it.
"""

import io
import json
import pathlib
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from safetensors import numpy as safetensors

from pir_jax.pretrained import weights
from pir_jax.types import InputError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TORCH = ("torch_network.pkl", "torch_state.pt", "torch_state_old.pt")
GRID = np.arange(24.0, dtype=np.float32).reshape(4, 6)


@pytest.fixture
def write(tmp_path):
  """Writes bytes under a name and gives the path."""

  def write(name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path

  return write


def test_a_published_network_is_read():
  # The order in which the numbers were counted; `shared` is `first` again.
  shapes = {
    "decoder.net.0.weight": (3, 2),
    "decoder.net.0.noise_const": (3, 3),
    "first.weight": (2, 4),
    "first.noise_const": (3, 3),
    "norm.weight": (2,),
    "norm.bias": (2,),
    "norm.running_mean": (2,),
    "norm.running_var": (2,),
    "norm.num_batches_tracked": (),
  }
  want, count = {}, 0
  for name, shape in shapes.items():
    size = int(np.prod(shape))
    want[name] = np.arange(count, count + size).reshape(shape)
    count += size
  want["shared.weight"] = want["first.weight"]
  want["shared.noise_const"] = want["first.noise_const"]
  found = weights.read_network(GOLDENS / "torch_network.pkl")
  assert found.weights.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(found.weights[name], array, err_msg=name)
  assert found.weights["first.weight"].dtype == np.float32
  assert found.weights["norm.num_batches_tracked"].dtype == np.int64
  assert found.attributes["neural_rendering_resolution"] == 128
  assert found.attributes["rendering_kwargs"] == {
    "ray_start": 2.25,
    "box_warp": 1,
    "on": True,
  }


@pytest.mark.parametrize("name", TORCH[1:])
def test_a_saved_state_dict_is_read(name):
  found = weights.read(GOLDENS / name)
  want = {
    "all": GRID,
    "part": GRID[1:4:2, 1:6:2],
    "turned": GRID.T,
    "half": GRID,
    "whole": GRID[0].astype(np.int64),
    "one": GRID[3, 5],
  }
  assert found.keys() == want.keys()
  for key, array in want.items():
    assert found[key].dtype == array.dtype, key
    np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_arrays_are_read(write, protocol):
  want = {
    "a": GRID.astype(">f4"),
    "b": np.asfortranarray(GRID),
    "c": GRID.astype(np.float16),
    "d": np.asarray(7),
    "e": np.ones((0, 3), bool),
  }
  data = pickle.dumps(want | {"g": np.float64(2)}, protocol)
  found = weights.read(write("a.pkl", data))
  assert found.keys() == want.keys()
  for key, array in want.items():
    np.testing.assert_array_equal(found[key], array)
    assert found[key].dtype.isnative
  assert found["c"].dtype == np.float32


def test_an_npz_is_read(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, a=GRID.astype(np.float16), b=np.arange(3))
  found = weights.read(path)
  np.testing.assert_array_equal(found["a"], GRID)
  assert found["a"].dtype == np.float32 and found["b"].dtype == np.int64
  np.savez(path, **{"param/x.y": GRID, "in/z": GRID, "out/z": GRID})
  assert weights.read(path).keys() == {"x.y"}


def test_safetensors_are_read(write):
  arrays = {"a": GRID, "b": GRID.astype(np.float16), "c": np.arange(3)}
  found = weights.read(write("a.safetensors", safetensors.save(arrays)))
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
  assert found["b"].dtype == np.float32 and found["c"].dtype == np.int64
  # bfloat16 is the upper half of float32: these numbers fit in it.
  upper = (GRID.view(np.uint32) >> 16).astype("<u2").tobytes()
  entry = {"dtype": "BF16", "shape": [4, 6], "data_offsets": [0, len(upper)]}
  header = json.dumps({"a": entry}).encode()
  data = struct.pack("<Q", len(header)) + header + upper
  found = weights.read(write("b.safetensors", data))
  np.testing.assert_array_equal(found["a"], GRID)
  assert found["a"].dtype == np.float32


@pytest.fixture
def module(monkeypatch):
  """Makes stand-ins for pickled torch.nn.Modules."""
  container = types.ModuleType("torch.nn.modules.container")

  class Sequential:
    def __init__(self, **state):
      vars(self).update(state)

  Sequential.__module__, Sequential.__qualname__ = (
    container.__name__,
    "Sequential",
  )
  container.Sequential = Sequential
  for name in ("torch", "torch.nn", "torch.nn.modules"):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
  monkeypatch.setitem(sys.modules, container.__name__, container)
  return Sequential


def test_the_network_is_chosen(write, module):
  nets = {
    name: module(_parameters={"w": np.full(2, i)}, _buffers={}, _modules={})
    for i, name in enumerate(("G", "D", "G_ema"))
  }
  path = write("a.pkl", pickle.dumps(nets | {"settings": {"a": 1}}))
  assert weights.read(path)["w"][0] == 2
  assert weights.read(path, network="D")["w"][0] == 1
  with pytest.raises(InputError, match="no network E: .* \\('G', 'D', 'G_ema'"):
    weights.read(path, network="E")
  with pytest.raises(InputError, match="holds no weights"):
    weights.read(path, network="settings")
  alone = write("b.pkl", pickle.dumps(nets["D"]))
  assert weights.read(alone, network="G_ema")["w"][0] == 1


def test_modules_without_end_are_refused(write, module):
  loop = module(_parameters={})
  loop._modules = {"a": loop}
  with pytest.raises(InputError, match="without end"):
    weights.read(write("a.pkl", pickle.dumps(loop)))
  for state in (
    {"_modules": 3},
    {"_modules": {"a": 3}},
    {"_modules": {3: module()}},
    {"_parameters": {("a",): np.zeros(1)}},
    {"_buffers": {}, "_non_persistent_buffers_set": [1]},
  ):
    with pytest.raises(InputError, match="is damaged"):
      weights.read(write("a.pkl", pickle.dumps(module(**state))))


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
@pytest.mark.parametrize("data", (b"", b"garbage", b"PK\3\4garbage" * 9))
def test_garbage_is_explained(write, suffix, data):
  with pytest.raises(InputError, match="is damaged .*: fetch it anew"):
    weights.read(write(f"a{suffix}", data))


def test_the_wrong_file_is_explained(write, tmp_path):
  with pytest.raises(InputError, match="there is no file"):
    weights.read(tmp_path / "a.pkl")
  with pytest.raises(InputError, match="ends in .npz, .safetensors, .pkl"):
    weights.read(write("a.txt", b""))
  for value in (3, [1], "x", None):
    with pytest.raises(InputError, match="neither a network nor a state dict"):
      weights.read(write("a.pkl", pickle.dumps(value)))
  with pytest.raises(InputError, match="no network G_ema: .*none at all"):
    weights.read(write("a.pkl", pickle.dumps({"a": 1})))
  np.savez(tmp_path / "a.npz")
  with pytest.raises(InputError, match="holds no weights"):
    weights.read(tmp_path / "a.npz")
  np.savez(tmp_path / "a.npz", a=np.array([{}]))
  with pytest.raises(InputError, match="is damaged or no .npz of plain"):
    weights.read(tmp_path / "a.npz")
  stream = io.BytesIO()
  np.save(stream, GRID)
  with pytest.raises(InputError, match="is damaged or no .npz of plain"):
    weights.read(write("b.npz", stream.getvalue()))
