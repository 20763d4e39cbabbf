"""Reads published weights, in whichever file they come, as numpy arrays.

No torch, and no code of a file is run: `pretrained.unpickler` reads pickles.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from pir_jax.pretrained import records, unpickler
from pir_jax.types import InputError

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".npz", ".safetensors", *PICKLES)
# The network of a GAN's pickle that makes the published images.
_AVERAGED = "G_ema"
# Before the names of weights in an .npz that holds other arrays too.
_PARAM = "param/"
# Modules may share modules; without end only in a damaged file.
_MAX_MODULES = 10_000
_MAX_NAME = 1000  # letters
_SAFETENSORS = {
  "F64": "<f8",
  "F32": "<f4",
  "F16": "<f2",
  "BF16": "<u2",
  "I64": "<i8",
  "I32": "<i4",
  "I16": "<i2",
  "I8": "<i1",
  "U64": "<u8",
  "U32": "<u4",
  "U16": "<u2",
  "U8": "<u1",
  "BOOL": "<b1",
}


class Network(NamedTuple):
  """One network of a file.

  Attributes:
    weights: published name -> array, parameters and persistent buffers.
    attributes: the network object's own values, texts and dicts of them, such
      as `rendering_kwargs`; empty where the file is not of an object.
  """

  weights: dict[str, np.ndarray]
  attributes: dict[str, Any]


def read(path: str | Path, *, network: str = "") -> dict[str, np.ndarray]:
  """Reads the state dict in a file, with its published names and layouts.

  Args:
    path: .npz (with names under `param/`, only these are taken, without it),
      .safetensors, or what torch.save or pickle.dump wrote, whole networks of
      EG3D and StyleGAN included.
    network: which entry of a pickled dict of networks; "" is G_ema. Other
      files hold one network, and it is not asked for.

  Returns:
    name -> array; float16 and bfloat16 are widened to float32.

  Raises:
    InputError: the file is absent, damaged, of another kind, without weights
      or without this network, or is a pickle that asks for anything else.
  """
  return read_network(path, network=network).weights


def read_network(path: str | Path, *, network: str = "") -> Network:
  """Reads like `read`, with the network's attributes beside its weights."""
  path = Path(path)
  if path.suffix.lower() not in SUFFIXES:
    raise InputError(
      f"{path} has no name of a file of weights: give one that ends in "
      f"{', '.join(SUFFIXES)}"
    )
  if not path.is_file():
    raise InputError(f"there is no file {path}: fetch it from its publisher")
  if path.suffix.lower() == ".npz":
    contents = Network(_read_npz(path), {})
  elif path.suffix.lower() == ".safetensors":
    contents = Network(_read_safetensors(path), {})
  else:
    tree = unpickler.load(path)
    try:
      contents = _from_pickle(path, tree, network)
    except records.Damage as damage:
      raise InputError(
        f"{path} is damaged ({damage}): fetch it anew"
      ) from damage
  if not contents.weights:
    raise InputError(f"{path} holds no weights: give a network's state dict")
  return contents


def _read_npz(path: Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,  # a bare .npy
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise InputError(
      f"{path} is damaged or no .npz of plain arrays "
      f"({type(error).__name__}): fetch it anew"
    ) from error
  if any(name.startswith(_PARAM) for name in arrays):
    arrays = {
      name.removeprefix(_PARAM): array
      for name, array in arrays.items()
      if name.startswith(_PARAM)
    }
  return {name: _single(array) for name, array in arrays.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
  try:
    tensors = safetensors.deserialize(path.read_bytes())
  except safetensors.SafetensorError as error:
    raise InputError(f"{path} is damaged ({error}): fetch it anew") from error
  arrays = {}
  for name, tensor in tensors:
    kind = tensor["dtype"]
    if kind not in _SAFETENSORS:
      raise InputError(
        f"{path} holds {name} as {kind}: save it as float32, float16 or "
        "bfloat16"
      )
    flat = np.frombuffer(tensor["data"], _SAFETENSORS[kind])
    array = flat.reshape(tensor["shape"])
    arrays[name] = records.widened(array) if kind == "BF16" else _single(array)
  return arrays


def _single(array: np.ndarray) -> np.ndarray:
  return array.astype(np.float32) if array.dtype == np.float16 else array


def _from_pickle(path: Path, tree: Any, network: str) -> Network:
  """Picks the network out of the contents of a pickle."""
  if isinstance(tree, Mapping) and not _is_state_dict(tree):
    name = network or _AVERAGED
    if name not in tree:
      entries = [_name(n) for n, x in tree.items() if _holds_weights(x)]
      there = ", ".join(map(ascii, entries[:20])) or "none at all"
      raise InputError(
        f"{path} holds no network {name}: choose one of those it has ({there})"
      )
    tree = tree[name]
  if isinstance(tree, records.Record):
    return Network(_walk(tree), _attributes(tree.state))
  if not isinstance(tree, Mapping):
    raise InputError(
      f"{path} holds neither a network nor a state dict: give one of these"
    )
  return Network(_arrays(tree), {})


def _is_array(value: Any) -> bool:
  return isinstance(value, records.Tensor | records.Array)


def _is_state_dict(entries: Mapping) -> bool:
  return any(map(_is_array, entries.values()))


def _holds_weights(value: Any) -> bool:
  return isinstance(value, records.Record) or (
    isinstance(value, Mapping) and _is_state_dict(value)
  )


def _name(key: Any) -> str:
  if not isinstance(key, str) or len(key) > _MAX_NAME:
    raise records.Damage("a part of a network without a name")
  return key


def _arrays(entries: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
  """Returns the tensors among the entries, without counters and settings."""
  return {
    prefix + _name(name): value.array()
    for name, value in entries.items()
    if _is_array(value)
  }


def _walk(network: records.Record) -> dict[str, np.ndarray]:
  """Returns the state dict of a pickled torch.nn.Module, names with dots."""
  weights, modules, num_modules = {}, [("", network)], 0
  while modules:
    prefix, module = modules.pop()
    num_modules += 1
    if num_modules > _MAX_MODULES:
      raise records.Damage("modules within modules without end")
    if not isinstance(module, records.Record):
      raise records.Damage("something else in a module's place")
    parameters, buffers, children = (
      _part(module, name) for name in ("_parameters", "_buffers", "_modules")
    )
    passing = module.state.get("_non_persistent_buffers_set", set())
    if not isinstance(passing, set):
      raise records.Damage("no set of buffers that are not kept")
    kept = {name: x for name, x in buffers.items() if name not in passing}
    for entries in (parameters, kept):
      weights |= _arrays(entries, prefix)
    modules += [
      (f"{prefix}{_name(name)}.", child)
      for name, child in children.items()
      if child is not None
    ]
  return weights


def _part(module: records.Record, name: str) -> Mapping:
  part = module.state.get(name, {})
  if not isinstance(part, Mapping):
    raise records.Damage(f"a module's {name} is no dict")
  return part


def _attributes(state: Mapping) -> dict[str, Any]:
  """Returns the plain values among an object's attributes, one dict deep."""

  def plain(values):
    return {
      name: value
      for name, value in values.items()
      if isinstance(name, str) and isinstance(value, int | float | str)
    }

  nested = {
    name: plain(value)
    for name, value in state.items()
    if isinstance(name, str) and isinstance(value, Mapping) and name[:1] != "_"
  }
  return plain(state) | nested
