"""Files that PyTorch wrote, read without it, are what PyTorch reads.

The network's pickle is made the way EG3D publishes: objects that carry their
module's source and their attributes.
"""

import collections
import pickle
import sys
import types

import numpy as np
import pytest

from pir_jax.pretrained import weights

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

DTYPES = (
  torch.float64,
  torch.float32,
  torch.float16,
  torch.bfloat16,
  torch.int64,
  torch.int32,
  torch.int16,
  torch.int8,
  torch.uint8,
  torch.bool,
)
SOURCE = "raise SystemExit('the source in a pickle was run')"


def _persistent(cls):
  """Pickles as a call with the source and the attributes of the object."""

  def reduce(self):
    meta = dict(
      type="class",
      version=6,
      module_src=SOURCE,
      class_name=cls.__name__,
      state=self.__dict__,
    )
    rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
    return rebuild, (meta,), None

  cls.__reduce__ = reduce
  return cls


@_persistent
class Layer(torch.nn.Module):
  """A persistent layer with all kinds of entries."""

  def __init__(self, num_inputs, num_outputs):
    super().__init__()
    self.weight = torch.nn.Parameter(torch.randn(num_outputs, num_inputs))
    self.register_parameter("bias", None)
    self.register_buffer("noise_const", torch.randn(3, 3))
    self.register_buffer("passing", torch.zeros(2), persistent=False)
    self.register_buffer("nothing", None)
    # As StyleGAN's layers do: numpy's numbers among the attributes.
    self.weight_gain = 1 / np.sqrt(num_inputs)
    self.table = np.arange(6.0).reshape(2, 3)


class Decoder(torch.nn.Module):
  """Not persistent: pickled by the name of its class."""

  def __init__(self):
    super().__init__()
    self.net = torch.nn.Sequential(Layer(2, 3), torch.nn.Softplus())


class EasyDict(dict):
  """A dict with attributes."""


@_persistent
class Network(torch.nn.Module):
  """A network of a file."""

  def __init__(self):
    super().__init__()
    self.decoder = Decoder()
    self.first = Layer(4, 2)
    self.shared = self.first
    self.norm = torch.nn.BatchNorm1d(2)
    self.absent = None
    self.rendering_kwargs = {"ray_start": 2.25, "box_warp": 1, "on": True}
    self.neural_rendering_resolution = 128
    self.plane_axes = torch.eye(3).expand(2, 3, 3)
    self._init_args, self._init_kwargs = (), EasyDict(size=torch.Size([1]))
    self.kept = (torch.device("cpu"), torch.float32, {1, 2}, b"x", None)


@pytest.fixture
def published(monkeypatch):
  """The modules that the classes above say they are from."""

  def rebuild(meta):
    raise AssertionError(meta)

  rebuild.__name__ = rebuild.__qualname__ = "_reconstruct_persistent_obj"
  homes = (
    ("torch_utils.persistence", rebuild),
    ("training.triplane", Decoder),
    ("dnnlib.util", EasyDict),
  )
  for name, thing in homes:
    module = types.ModuleType(name)
    setattr(module, thing.__name__, thing)
    monkeypatch.setattr(thing, "__module__", name)
    monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType("x"))
    monkeypatch.setitem(sys.modules, name, module)


def _same(got, want):
  """Exactly the numbers of a torch state dict, with half precision widened."""
  assert got.keys() == want.keys()
  for name, tensor in want.items():
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    expected = (tensor.float() if half else tensor).detach().numpy()
    assert got[name].dtype == expected.dtype, name
    np.testing.assert_array_equal(got[name], expected, err_msg=name)


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_a_published_network_agrees(tmp_path, published, protocol):
  nets = {name: Network() for name in ("G", "D", "G_ema")}
  nets["augment_pipe"] = None
  nets["training_set_kwargs"] = EasyDict(path="x", use_labels=True)
  path = tmp_path / "network.pkl"
  path.write_bytes(pickle.dumps(nets, protocol))
  assert SOURCE.encode() in path.read_bytes()
  found = weights.read_network(path)
  _same(found.weights, nets["G_ema"].state_dict())
  assert found.attributes["rendering_kwargs"] == nets["G"].rendering_kwargs
  assert found.attributes["neural_rendering_resolution"] == 128
  _same(weights.read(path, network="D"), nets["D"].state_dict())


def _awkward():
  """Views of one storage, in every type torch's weights have."""
  state = collections.OrderedDict()
  for dtype in DTYPES:
    base = (torch.randn(6, 8) * 5).to(dtype)
    name = str(dtype)
    state[name] = base
    state[name + ".transposed"] = base.T
    state[name + ".part"] = base[1:5:2, 2:7:3]
    state[name + ".repeated"] = base[0, :1].expand(4, 3)
    state[name + ".number"] = base[2, 3]
    state[name + ".empty"] = base[6:]
  state["parameter"] = torch.nn.Parameter(torch.randn(3))
  return state


@pytest.mark.parametrize("new", (True, False), ids=("zip", "legacy"))
@pytest.mark.parametrize("protocol", (2, 4))
def test_a_saved_state_dict_agrees(tmp_path, new, protocol):
  state = _awkward()
  path = tmp_path / "state.pth"
  torch.save(
    state,
    path,
    pickle_protocol=protocol,
    _use_new_zipfile_serialization=new,
  )
  _same(weights.read(path), state)
  torch.save(
    {"epoch": 3, "state_dict": state},
    path,
    _use_new_zipfile_serialization=new,
  )
  _same(weights.read(path, network="state_dict"), state)


@pytest.mark.parametrize("new", (True, False), ids=("zip", "legacy"))
def test_a_module_s_own_state_dict_agrees(tmp_path, new):
  # Unlike a plain OrderedDict, it has an attribute, `_metadata`.
  state = torch.nn.BatchNorm1d(4).state_dict()
  path = tmp_path / "state.pt"
  torch.save(state, path, _use_new_zipfile_serialization=new)
  _same(weights.read(path), state)


def test_pickled_tensors_agree(tmp_path):
  state = dict(_awkward())
  path = tmp_path / "state.pkl"
  path.write_bytes(pickle.dumps(state))
  _same(weights.read(path), state)
