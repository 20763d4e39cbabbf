"""PyTorch's pickles, read without torch and without running anything in them.

A pickle is a program: it names functions and calls them. Here each name it may
use stands for one of our own inert records, and any other name ends the
reading. Three containers are known: a bare pickle (StyleGAN's and EG3D's
networks), torch.save's zip and torch.save's older stream of pickles.
"""

import io
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pir_jax.pretrained import records
from pir_jax.types import InputError

_ZIP = b"PK\3\4"  # how every zip with something in it begins.
# torch.save's older format opens with these two values.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Tuples in one pickle; Python hashes nested ones until its stack overflows.
_MAX_TUPLES = 50_000
# What a broken pickle makes the standard unpickler raise.
_BREAKAGE = (
  pickle.UnpicklingError,
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  OverflowError,
  TypeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
  NotImplementedError,  # zip: an unknown compression
  RuntimeError,  # zip: a password
)


class _Refusal(Exception):
  """The pickle asks for something that is not weights."""


def load(
  path: Path,
  *,
  names: Mapping[tuple[str, str], Callable] | None = None,
  what: str = "PyTorch weights",
) -> Any:
  """Reads the object in a file: dicts, lists, plain values and our records.

  Args:
    path: of the file.
    names: more (module, name) that a bare pickle may use, and what stands for
      them. A pickle that is read with them may be of Python 2, whose bytes are
      text.
    what: should be in it, for people.

  Raises:
    InputError: the file is damaged, is of none of the three kinds, or asks for
      something that weights do not need.
  """
  try:
    data = path.read_bytes()
    if names is not None:
      return _unpickle(io.BytesIO(data), names=names)
    return _load_zip(data) if data.startswith(_ZIP) else _load_stream(data)
  except _Refusal as refusal:
    raise InputError(
      f"{path} asks for {refusal}, which no {what} need: it was not run; "
      "fetch the file anew from its publisher"
    ) from refusal
  except _BREAKAGE as error:
    reason = (
      error if isinstance(error, records.Damage) else type(error).__name__
    )
    raise InputError(
      f"{path} is damaged or no file of {what} ({reason}): fetch it anew"
    ) from error


class _Unpickler(pickle.Unpickler):
  """Builds records; `storages` is None for a bare pickle, which has none."""

  def __init__(
    self,
    stream,
    storages: dict[str, records.Storage] | None,
    names: Mapping[tuple[str, str], Callable] | None = None,
  ):
    super().__init__(stream, encoding="latin1" if names else "ASCII")
    self._storages, self._names = storages, names or {}

  def find_class(self, module, name):
    if (module, name) in self._names:
      return self._names[module, name]
    if (module, name) == ("torch.storage", "_load_from_bytes"):
      # Bytes within bytes have no end: torch.save never writes them.
      if self._storages is None:
        return _LOAD_FROM_BYTES
    elif (module, name) in _GLOBALS:
      return _GLOBALS[module, name]
    elif module in ("torch", "torch.cuda") and name in records.STORAGES:
      return records.STORAGES[name]
    elif module == "torch" and name in records.DTYPES:
      return name
    elif _FOREIGN.fullmatch(module) and name.isidentifier():
      return records.Record
    raise _Refusal(ascii(f"{module}.{name}")[1:-1][:100])

  def persistent_load(self, pid):
    if self._storages is None or not isinstance(pid, tuple) or len(pid) < 5:
      raise records.Damage("a reference to outside the pickle")
    word, dtype, key, _, num_elements, *view = pid
    if word != "storage" or not isinstance(key, str) or any(view):
      raise records.Damage("a reference to outside the pickle")
    storage = records.Storage(dtype, num_elements)
    known = self._storages.setdefault(key, storage)
    if (known.dtype, known.num_elements) != (dtype, num_elements):
      raise records.Damage("a storage of two sizes")
    return known


def _unpickle(
  stream,
  storages: dict[str, records.Storage] | None = None,
  names: Mapping[tuple[str, str], Callable] | None = None,
) -> Any:
  """Reads one pickle and leaves the stream behind it."""
  start = stream.tell()
  # The fast unpickler reserves memory by sizes that the file claims; this
  # pass, which only lists the opcodes, has already met the end of the file.
  num_tuples = 0
  for index, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
    num_tuples += opcode.name.startswith("TUPLE")
    if num_tuples > _MAX_TUPLES:
      raise records.Damage("more parts than a network has")
    if opcode.name.startswith("EXT"):
      raise _Refusal("an extension of Python's pickles")
    if opcode.name.endswith("PUT") and argument > index:
      raise records.Damage("a place in memory that it never filled")
  stream.seek(start)
  return _Unpickler(stream, storages, names).load()


def _load_stream(data: bytes) -> Any:
  """Reads a bare pickle, or torch.save's older format."""
  stream = io.BytesIO(data)
  tree = _unpickle(stream)
  if type(tree) is not int or tree != _MAGIC:
    return tree
  return _load_legacy(stream, data)


def _load_legacy(stream, data: bytes) -> Any:
  """Reads the rest of torch.save's older format, after the magic number."""
  if _unpickle(stream) != _PROTOCOL:
    raise records.Damage("an unknown version of torch.save's format")
  system = _unpickle(stream)
  if not isinstance(system, dict) or system.get("little_endian") is not True:
    raise records.Damage("data of a big-endian machine")
  storages = {}
  tree = _unpickle(stream, storages)
  keys = _unpickle(stream)
  if not isinstance(keys, list) or set(keys) != set(storages):
    raise records.Damage("storages that it does not announce")
  position, view = stream.tell(), memoryview(data)
  for key in keys:
    (num_elements,) = struct.unpack("<q", _take(view, position, 8))
    if num_elements != storages[key].num_elements:
      raise records.Damage("a storage of two sizes")
    num_bytes = storages[key].num_bytes
    storages[key].fill(_take(view, position + 8, num_bytes))
    position += 8 + num_bytes
  return tree


def _load_zip(data: bytes) -> Any:
  """torch.save's zip: one pickle, and one member for each storage."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [n for n in members if re.fullmatch(r"([^/]+/)?data\.pkl", n)]
    if len(pickles) != 1:
      raise records.Damage("a zip without torch.save's data.pkl")

    def member(name):
      if name not in members:
        raise records.Damage(f"no {name} in the zip")
      # torch.save does not compress.
      if members[name].file_size > len(data):
        raise records.Damage(f"{name} is larger than the file")
      return archive.read(name)

    folder = pickles[0].removesuffix("data.pkl")
    if folder + "byteorder" in members:
      if member(folder + "byteorder") != b"little":
        raise records.Damage("data of a big-endian machine")
    storages = {}
    tree = _unpickle(io.BytesIO(member(pickles[0])), storages)
    for key, storage in storages.items():
      storage.fill(member(f"{folder}data/{key}"))
  return tree


def _take(view: memoryview, start: int, size: int) -> memoryview:
  if len(view) - start < size:
    raise records.Damage("the file ends too early")
  return view[start : start + size]


def _storage_from_bytes(data):
  if not isinstance(data, bytes):
    raise records.Damage("a storage without bytes")
  stream = io.BytesIO(data)
  if _unpickle(stream, {}) != _MAGIC:
    raise records.Damage("a storage in an unknown format")
  return _load_legacy(stream, data)


def _rebuild_tensor(storage, offset, shape, strides, *rest):
  # The last of the rest is whether the tensor is negated or conjugated.
  if len(rest) > 2 and rest[2]:
    raise records.Damage("a tensor that is a negated view")
  return records.Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor, *unused_rest):
  return tensor


def _persistent(meta):
  """Returns the object's state; its source, in `module_src`, is not read."""
  record = records.Record()
  record.__setstate__(meta.get("state") if isinstance(meta, dict) else None)
  return record


def _reconstructor(cls, *unused_rest):
  if cls is not records.Record:
    raise records.Damage("an object of an unknown class")
  return records.Record()


def _encode(text, encoding):
  if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
    raise records.Damage("bytes in an unknown encoding")
  return text.encode("latin1")


def _empty_bytes():
  # Of no arguments: given a number, bytes would be so long.
  return b""


def _scalar(kind, data):
  array = records.Array()
  array.set(data, kind, (), "C")
  return array.array().item()


def _array(data, kind, shape, order):
  array = records.Array()
  array.set(data, kind, shape, order)
  return array


_LOAD_FROM_BYTES = records.Call(_storage_from_bytes)
# Classes that only hold a network's parts; their names mean nothing to us.
_FOREIGN = re.compile(r"(torch\.nn\.modules|training)(\.\w+)*", re.ASCII)
_GLOBALS = {
  ("collections", "OrderedDict"): records.Mapping,
  ("dnnlib.util", "EasyDict"): records.Mapping,
  ("torch_utils.persistence", "_reconstruct_persistent_obj"): records.Call(
    _persistent
  ),
  ("torch._utils", "_rebuild_tensor_v2"): records.Call(_rebuild_tensor),
  ("torch._utils", "_rebuild_parameter"): records.Call(_rebuild_parameter),
  ("torch._utils", "_rebuild_parameter_with_state"): records.Call(
    _rebuild_parameter
  ),
  ("torch", "Size"): records.Call(tuple),
  ("torch", "device"): records.Call(lambda *unused_name: None),
  ("numpy", "dtype"): records.NumpyType,
  ("numpy", "ndarray"): records.Array,
  ("_codecs", "encode"): records.Call(_encode),
}
for _module in ("builtins", "__builtin__"):
  _GLOBALS[_module, "set"] = set
  _GLOBALS[_module, "object"] = "object"
  _GLOBALS[_module, "bytes"] = records.Call(_empty_bytes)
for _module in ("copyreg", "copy_reg"):
  _GLOBALS[_module, "_reconstructor"] = records.Call(_reconstructor)
# numpy 2 renamed its rooms.
for _module in ("numpy.core", "numpy._core"):
  _GLOBALS[_module + ".multiarray", "_reconstruct"] = records.Array
  _GLOBALS[_module + ".multiarray", "scalar"] = records.Call(_scalar)
  _GLOBALS[_module + ".numeric", "_frombuffer"] = records.Call(_array)
