"""A pickle is read as weights, or refused in one sentence, and never run.

The files torch_* in tests/goldens were written by PyTorch 2.13.
"""

import io
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from pir_jax.pretrained import records, weights
from pir_jax.types import InputError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TORCH = ("torch_network.pkl", "torch_state.pt", "torch_state_old.pt")
GRID = np.arange(24.0, dtype=np.float32).reshape(4, 6)
NUMBERS = GRID.tobytes()
# What torch.save's older format begins with.
HEAD = b"".join(
  pickle.dumps(x, 2)
  for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
# Opcodes of the pickle virtual machine.
MARK, TUPLE, REDUCE, STOP = b"(", b"t", b"R", b"."


def _global(name):
  """The opcode that asks for `module.name`."""
  module, _, name = name.rpartition(".")
  return f"c{module}\n{name}\n".encode()


def _call(name, *parts):
  """A pickle's expression: what `name` returns for these expressions."""
  return _global(name) + MARK + b"".join(parts) + TUPLE + REDUCE


def _value(value):
  """A plain value as an expression."""
  return pickle.dumps(value, 0)[:-1]


@pytest.fixture
def write(tmp_path):
  """Writes bytes under a name and gives the path."""

  def write(name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path

  return write


# Code that would leave a file behind, were any of it run.
HOSTILE = {
  "os.system": _call("os.system", _value("touch ran")),
  "posix.system": _call("posix.system", _value("touch ran")),
  "builtins.eval": _call("builtins.eval", _value("open('ran', 'w')")),
  "builtins.getattr": _call(
    "builtins.getattr",
    _call("training.triplane.OSGDecoder"),
    _value("__class__"),
  ),
  "numpy.f2py": _call("numpy.f2py.compile", _value("x")),
  "numpy.load": _call("numpy.load", _value("x")),
  "torch.load": _call("torch.load", _value("x")),
  "pickle.loads": _call("pickle.loads", _value(b"x")),
  "torch.nn.modules.os.system": (
    b"\x8c\x10torch.nn.modules\x8c\x09os.system\x93"
  ),
  "training.triplane.os.system": (
    b"\x8c\x11training.triplane\x8c\x09os.system\x93"
  ),
  "trainingx.a": _global("trainingx.a"),
  "torch.nn.functional.relu": _global("torch.nn.functional.relu"),
  "extension": b"\x82\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ("bare", "zip", "old", "storage"))
def test_a_pickle_that_asks_for_more_is_refused(
  write, tmp_path, monkeypatch, name, kind
):
  monkeypatch.chdir(tmp_path)
  data = HOSTILE[name] + STOP
  if kind == "zip":
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
      archive.writestr("archive/data.pkl", data)
    data = stream.getvalue()
  elif kind != "bare":
    data = HEAD + data
  if kind == "storage":
    data = _call("torch.storage._load_from_bytes", _value(data)) + STOP
  path = write("a.pkl", data)
  with pytest.raises(InputError, match=f"asks for .*{name}.* not run; fetch"):
    weights.read(path)
  assert os.listdir(tmp_path) == ["a.pkl"]


def test_source_in_a_pickle_is_not_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data = (GOLDENS / "torch_network.pkl").read_bytes()
  # Of the same length, so that the pickle stays whole.
  source = b"raise SystemExit('the source in a pickle was run')"
  other = b"open('ran', 'w')".ljust(len(source))
  assert source in data
  (tmp_path / "a.pkl").write_bytes(data.replace(source, other))
  assert weights.read(tmp_path / "a.pkl")
  assert os.listdir(tmp_path) == ["a.pkl"]


@pytest.mark.parametrize(
  "name",
  (
    "training.triplane.OSGDecoder",
    "collections.OrderedDict",
    "builtins.set",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
    "torch.FloatStorage",
  ),
)
@pytest.mark.parametrize("state", ({"array": 1}, (None, {"array": 1})))
def test_a_pickle_cannot_change_what_it_is_given(write, name, state):
  closed = (
    records.Record,
    records.Mapping,
    records.Call,
    records.Array,
    records.NumpyType,
  )
  before = [dict(vars(kind)) for kind in closed]
  # BUILD, the opcode b, writes attributes of whatever is before it.
  with pytest.raises(InputError, match="is damaged"):
    weights.read(write("a.pkl", _global(name) + _value(state) + b"b."))
  assert before == [dict(vars(kind)) for kind in closed]


@pytest.mark.parametrize("name", TORCH)
def test_damage_is_one_sentence(write, name):
  data = (GOLDENS / name).read_bytes()
  rng, refused = np.random.default_rng(0), 0
  for _ in range(400):
    broken = bytearray(data)
    if rng.random() < 0.3:
      broken = broken[: rng.integers(len(data))]
    else:
      for place in rng.integers(len(data), size=rng.integers(1, 4)):
        broken[place] = rng.integers(256)
    try:
      weights.read(write(name, bytes(broken)))
    except InputError as error:
      assert "\n" not in str(error)
      refused += 1
  assert refused > 100


def _old(offset, shape, strides, *, size=24, data=NUMBERS):
  """torch.save's older format with one tensor in GRID's numbers."""
  storage = (
    MARK
    + _value("storage")
    + _global("torch.FloatStorage")
    + b"".join(map(_value, ("0", "cpu", size, None)))
    + TUPLE
    + b"Q"  # BINPERSID: what stands for it outside the pickle
  )
  rest = map(_value, (offset, shape, strides, False, None))
  tensor = _call("torch._utils._rebuild_tensor_v2", storage, *rest)
  return (
    HEAD
    + (MARK + _value("a") + tensor + b"d")  # DICT
    + STOP
    + pickle.dumps(["0"], 2)
    + struct.pack("<q", size)
    + data
  )


@pytest.mark.parametrize(
  "offset, shape, strides, want",
  (
    (0, (4, 6), (6, 1), GRID),
    (7, (2, 3), (12, 2), GRID[1::2, 1::2]),
    (23, (), (), GRID[3, 5]),
    (24, (0, 5), (5, 1), np.zeros((0, 5))),
    (5, (2, 3), (0, 0), np.full((2, 3), 5)),
  ),
)
def test_tensors_are_views(write, offset, shape, strides, want):
  path = write("a.pt", _old(offset, shape, strides))
  np.testing.assert_array_equal(weights.read(path)["a"], want)


@pytest.mark.parametrize(
  "offset, shape, strides",
  (
    (1, (4, 6), (6, 1)),
    (0, (4, 7), (6, 1)),
    (0, (2,), (24,)),
    (25, (0,), (1,)),
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2, 2), (1,)),
    (0, (1.0,), (1,)),
    (0, (2**62, 2**62), (0, 0)),
    (0, (2**62, 2), (2**62, 1)),
    (0, (1,) * 99, (1,) * 99),
    (0, 3, 1),
  ),
)
def test_tensors_stay_within_their_numbers(write, offset, shape, strides):
  with pytest.raises(InputError, match="is damaged .*tensor"):
    weights.read(write("a.pt", _old(offset, shape, strides)))


@pytest.mark.parametrize(
  "size, data", ((2**40, b"1234"), (24, b""), (-1, b""), (True, b"1234"))
)
def test_nothing_is_reserved_for_numbers_that_are_not_there(write, size, data):
  with pytest.raises(InputError, match="is damaged"):
    weights.read(write("a.pt", _old(0, (1,), (1,), size=size, data=data)))


@pytest.mark.parametrize(
  "data, reason",
  (
    # LONG_BINPUT: the fast unpickler would make 2^31 places.
    (_value({}) + b"r\xff\xff\xff\x7f.", "a place in memory"),
    # BINBYTES8 of 2^50 bytes; the pass before the unpickler says ValueError.
    (b"\x80\x04\x8e" + struct.pack("<q", 2**50) + b"x.", "ValueError"),
    # A key of 2^20 tuples (TUPLE1) in one another; SETITEM takes its hash.
    (b"})" + b"\x85" * 2**20 + b"Ns.", "more parts"),
  ),
)
def test_a_pickle_reserves_no_memory_by_its_word(write, data, reason):
  with pytest.raises(InputError, match=f"is damaged .*{reason}"):
    weights.read(write("a.pkl", data))


def test_storages_do_not_hold_storages(write):
  # Otherwise bytes within bytes would nest until the stack overflows.
  data = _old(0, (1,), (1,))
  inner = _call("torch.storage._load_from_bytes", _value(data)) + STOP
  outer = _call("torch.storage._load_from_bytes", _value(HEAD + inner)) + STOP
  with pytest.raises(InputError, match="asks for torch.storage._load_from_byt"):
    weights.read(write("a.pkl", outer))
