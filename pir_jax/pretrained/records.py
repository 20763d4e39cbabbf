"""What a pickle of weights may build: inert records of tensors and modules.

Each is closed: the BUILD opcode finds a `__setstate__` on every one of them, so
it writes no attribute, neither into an object nor into a class of ours.
"""

from collections.abc import Sequence

import numpy as np

# A tensor may repeat its elements (stride 0), up to this many elements.
_MAX_REPEATED = 2**20
_MAX_AXES = 32
# Names of torch's types -> how their bytes are read; bfloat16 is widened later.
DTYPES = {
  "float64": "<f8",
  "float32": "<f4",
  "float16": "<f2",
  "bfloat16": "<u2",
  "int64": "<i8",
  "int32": "<i4",
  "int16": "<i2",
  "int8": "<i1",
  "uint8": "<u1",
  "bool": "<b1",
}
STORAGES = {
  "DoubleStorage": "float64",
  "FloatStorage": "float32",
  "HalfStorage": "float16",
  "BFloat16Storage": "bfloat16",
  "LongStorage": "int64",
  "IntStorage": "int32",
  "ShortStorage": "int16",
  "CharStorage": "int8",
  "ByteStorage": "uint8",
  "BoolStorage": "bool",
}
# float16 to float64, integers, bool.
_NUMPY_TYPES = tuple("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())


class Damage(ValueError):
  """The file contradicts itself; the message has the reason."""


class Record:
  """An object of a class we do not have: only its attributes, never its code.

  Attributes:
    state: what the object's `__dict__` was.
  """

  __slots__ = ("state",)

  # Not __init__: the NEWOBJ opcode goes round it.
  def __new__(cls, *unused_args, **unused_kwargs):
    record = super().__new__(cls)
    record.state = {}
    return record

  def __setstate__(self, state):
    if not isinstance(state, dict):
      raise Damage("an object's attributes are not a dict")
    self.state = state


class Mapping(dict):
  """OrderedDict and EasyDict; attributes beside the items are dropped."""

  __slots__ = ()

  def __setstate__(self, unused_state):
    pass


class Call:
  """A function that a pickle may call, closed against BUILD."""

  __slots__ = ("_function",)

  def __init__(self, function):
    self._function = function

  def __call__(self, *args):
    return self._function(*args)

  def __setstate__(self, unused_state):
    raise Damage("a function with attributes")


class Storage:
  """A flat array that tensors are views of; filled after the pickle."""

  __slots__ = ("dtype", "num_elements", "_data")

  def __init__(self, dtype, num_elements):
    if dtype not in DTYPES:
      raise Damage("elements of an unknown type")
    if not is_count(num_elements):
      raise Damage("a storage of no proper size")
    self.dtype, self.num_elements, self._data = dtype, num_elements, None

  def __setstate__(self, unused_state):
    raise Damage("a storage with attributes")

  @property
  def num_bytes(self) -> int:
    return self.num_elements * np.dtype(DTYPES[self.dtype]).itemsize

  def fill(self, data):
    if len(data) < self.num_bytes:
      raise Damage(f"{len(data)} bytes where {self.num_bytes} should be")
    self._data = data

  def elements(self) -> np.ndarray:
    return np.frombuffer(
      self._data, np.dtype(DTYPES[self.dtype]), self.num_elements
    )


class Tensor:
  """A view of a storage, checked to lie within it."""

  __slots__ = ("_storage", "_offset", "_shape", "_strides")

  def __init__(self, storage, offset, shape, strides):
    if not isinstance(storage, Storage):
      raise Damage("a tensor without a storage")
    axes = (shape, strides)
    if not all(isinstance(axis, tuple | list) for axis in axes):
      raise Damage("a tensor without a shape")
    if not all(is_count(n) for n in (offset, *shape, *strides)):
      raise Damage("a tensor's shape is not of integers")
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
      raise Damage("a tensor's shape and strides do not agree")
    size = _size(shape)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((n - 1) * step for n, step in steps)
    if (last if size else offset - 1) >= storage.num_elements:
      raise Damage("a tensor ends after its storage")
    if size > max(storage.num_elements, _MAX_REPEATED):
      raise Damage("a tensor repeats its elements too often")
    self._storage, self._offset = storage, offset
    self._shape, self._strides = tuple(shape), tuple(strides)

  def __setstate__(self, unused_state):
    raise Damage("a tensor with attributes")

  def array(self) -> np.ndarray:
    """Returns a copy of the elements, half precision as float32."""
    elements = self._storage.elements()
    view = np.lib.stride_tricks.as_strided(
      elements[self._offset :] if _size(self._shape) else elements[:0],
      self._shape,
      [step * elements.itemsize for step in self._strides],
    )
    if self._storage.dtype == "bfloat16":
      return widened(view)
    return view.astype(np.float32 if view.dtype == np.float16 else view.dtype)


class NumpyType:
  """numpy.dtype, of plain numeric types only."""

  __slots__ = ("_text", "_order")

  def __new__(cls, text, *unused_flags):
    if not isinstance(text, str) or text not in _NUMPY_TYPES:
      raise Damage("an array of no numeric type")
    kind = super().__new__(cls)
    kind._text, kind._order = text, "<"
    return kind

  def __setstate__(self, state):
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "|", "="):
      raise Damage("an array of no numeric type")
    self._order = order if order == ">" else "<"

  def dtype(self) -> np.dtype:
    return np.dtype(self._order + self._text)


class Array:
  """A numpy array, as its raw bytes."""

  __slots__ = ("_type", "_shape", "_order", "_data")

  def __new__(cls, *unused_args):
    array = super().__new__(cls)
    array._type, array._shape, array._order, array._data = None, (), "C", b""
    return array

  def __setstate__(self, state):
    if not isinstance(state, tuple) or len(state) not in (4, 5):
      raise Damage("an array without its parts")
    shape, kind, fortran, data = state[-4:]
    self.set(data, kind, shape, "F" if fortran else "C")

  def set(self, data, kind, shape, order):
    if not isinstance(kind, NumpyType) or not isinstance(shape, tuple):
      raise Damage("an array without a type or a shape")
    if not all(map(is_count, shape)) or len(shape) > _MAX_AXES:
      raise Damage("an array's shape is not of integers")
    if isinstance(data, str):  # Python 2 wrote bytes as text.
      data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
      raise Damage("an array without bytes")
    if _size(shape) * kind.dtype().itemsize != len(data):
      raise Damage("an array's bytes do not fill its shape")
    self._type, self._shape, self._data = kind, shape, data
    self._order = "F" if order == "F" else "C"

  def array(self) -> np.ndarray:
    """Returns a copy of the elements, float16 as float32."""
    if self._type is None:
      raise Damage("an array without its parts")
    dtype = self._type.dtype()
    flat = np.frombuffer(self._data, dtype).reshape(
      self._shape, order=self._order
    )
    dtype = dtype.newbyteorder("=")
    return flat.astype(np.float32 if dtype == np.float16 else dtype)


def widened(bits: np.ndarray) -> np.ndarray:
  """Converts bfloat16, as its 16 bits, to float32."""
  out = np.empty(bits.shape, np.uint32)
  return np.left_shift(bits, 16, dtype=np.uint32, out=out).view(np.float32)


def is_count(number) -> bool:
  return type(number) is int and number >= 0


def _size(shape: Sequence[int]) -> int:
  """Like np.prod, without its overflow."""
  size = 1
  for length in shape:
    size *= length
  return size
